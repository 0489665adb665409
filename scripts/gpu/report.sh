# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by run: sections with a limit of time, and the two reports, in bash and coreutils alone.
#
# A section is a function. What it prints is the section's text in report.md; it says how it went by failed, cut_off, left_out
# or outcome, and hands numbers to report.json by result and data. Commands run under `limited`.
# shellcheck disable=SC2034,SC2154  # variables are shared with run and the files beside this one

json_string() {
  local s=${1//\\/\\\\}
  s=${s//\"/\\\"}
  s=${s//$'\n'/\\n}
  s=${s//$'\t'/\\t}
  printf '"%s"' "${s//[^[:print:]]/?}"
}

# truth CONDITION...: true or false, as `test` has it.
truth() { if test "$@"; then echo true; else echo false; fi; }

# join SEPARATOR WORD...
join() {
  local separator=$1 text=${2-}
  shift
  shift || true
  while [ $# -gt 0 ]; do
    text+=$separator$1
    shift
  done
  printf '%s' "$text"
}

# Writes both reports anew from the sections that have ended; each appears as a whole.
write_reports() {
  local key to_come=() parts=()
  for key in "${wanted[@]}"; do
    if [ -e "$work/$key.md" ]; then parts+=("$work/$key.md"); else to_come+=("$key"); fi
  done
  {
    printf '%s\n' "$heading"
    if [ ${#parts[@]} -gt 0 ]; then cat "${parts[@]}"; fi
    if [ ${#to_come[@]} -gt 0 ]; then printf '\n%s\n' "Not there yet, or never reached: sections $(join ', ' "${to_come[@]}")."; fi
  } >"$work/report.md" && mv "$work/report.md" "$output/report.md"
  printf '{"format": 1, "complete": %s, "bundle": %s, "started": %s, "seconds": %s, "emulated": %s, "sections": [%s]}\n' \
    "$(truth ${#to_come[@]} -eq 0)" "$bundle_json" "$(json_string "$started")" "$budget" \
    "$(truth -n "$emulated")" "$(join ', ' "${section_json[@]}")" \
    >"$work/report.json" && mv "$work/report.json" "$output/report.json"
}

# What is left of the section's time.
left() {
  local seconds=$((deadline - SECONDS))
  echo $((seconds > 0 ? seconds : 0))
}

# What runs beside a shell ends with it. A shell hears a signal at once only while it waits: so `limited` waits.
stop_children() {
  local children
  children=$(jobs -rp)
  if [ -n "$children" ]; then
    # shellcheck disable=SC2086  # several words
    kill $children 2>/dev/null
  fi
}
end_with_children() { trap 'trap - INT TERM HUP; stop_children; exit 130' INT TERM HUP; }

# limited LIMIT COMMAND...: stops the command after LIMIT seconds, or when the section's time is spent (status 124).
limited() {
  local limit=$1 rest
  shift
  rest=$(left)
  if [ "$rest" -lt "$limit" ]; then limit=$rest; fi
  if [ "$limit" -le 0 ]; then return 124; fi
  timeout -k 5 "$limit" "$@" &
  wait $!
}

# failed TEXT: the section has not shown what it is there for.
failed() {
  state=failed
  printf '\n%s\n\n' "FAILED: $*"
}
cut_off() {
  if [ "$state" != failed ]; then state="cut off"; fi
  printf '\n%s\n\n' "CUT OFF: $*"
}
left_out() {
  if [ "$state" = passed ]; then state="left out"; fi
  printf '\n%s\n\n' "Left out: $*"
}
# outcome STATUS WHAT: says how a command ended, if not well.
outcome() {
  case $1 in
    0) ;;
    124 | 137) cut_off "$2 was stopped at its limit" ;;
    *) failed "$2 ended with status $1" ;;
  esac
}
quote() { printf '```\n%s\n```\n\n' "$1"; }
# result JSON: a member of the section's results.
result() { results+=("$1"); }
# data NAME FILE: a file of JSON among the results, where a program has written it.
data() {
  if [ -s "$2" ]; then result "{\"name\": $(json_string "$1"), \"data\": $(<"$2")}"; fi
}
has() {
  if [ -x "$bin/$1" ]; then return 0; fi
  left_out "$1 is not in this bundle"
  return 1
}

# section KEY TITLE PERCENT FUNCTION: runs the function, whose output is the section's text. It ends when so much of the whole
# time has passed; what an earlier section leaves over, a later one has.
section() {
  local key=$1 title=$2 start=$SECONDS
  if [[ $sections != *$key* ]]; then return; fi
  deadline=$((budget * $3 / 100)) state=passed results=()
  say "$key. $title"
  "$4" >"$work/text" 2>"$work/errors"
  if [ -s "$work/errors" ]; then
    { echo "Messages:" && quote "$(head -c 6000 "$work/errors")"; } >>"$work/text"
  fi
  {
    printf '\n%s\n\n' "## $key. $title"
    cat "$work/text"
    printf '%s\n' "_Section $key: $state, $((SECONDS - start)) s._"
  } >"$work/$key.part"
  section_json+=("{\"section\": \"$key\", \"title\": $(json_string "$title"), \"state\": \"$state\",
 \"seconds\": $((SECONDS - start)), \"text\": $(json_string "$(<"$work/text")"),
 \"results\": [$(join ', ' "${results[@]}")]}")
  mv "$work/$key.part" "$work/$key.md"
  write_reports
  say "   $state after $((SECONDS - start)) s"
  if [ "$state" = failed ]; then status=1; fi
}
