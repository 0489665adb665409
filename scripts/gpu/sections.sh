# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by run: the sections of the report, in the order of their value.
# shellcheck disable=SC2034,SC2154  # variables are shared with run and the files beside this one

clocks() {
  local fields=name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,power.limit,temperature.gpu,ecc.mode.current
  nvidia-smi --id=0 "--query-gpu=$fields" --format=csv 2>/dev/null
}

machine() {
  local text code
  echo "$(uname -srm), $(nproc) cores; $cudart, $cublaslt; python3: ${python:-none}"
  echo
  if [ -z "$emulated" ]; then
    text=$(clocks) && quote "before: $text"
  fi
  has bench_cuda_kernels || return
  limited 60 "$bin/bench_cuda_kernels" "${tiny[@]}" --only ceiling --json "$work/ceilings.json"
  code=$?
  outcome $code "bench_cuda_kernels"
  data ceilings "$work/ceilings.json"
  if [ -z "$emulated" ]; then
    text=$(clocks) && echo && quote "after: $text"
  fi
  if [ "$state" = failed ] && [ ! -s "$work/ceilings.json" ]; then unusable=yes; fi
}

# test_line PROGRAM: a row of the table, and the output of what failed in `failures`.
test_line() {
  local name=$1 code text line outcome summary=''
  if [ -e "$work/$name.status" ]; then read -r code seconds <"$work/$name.status"; else code=124 seconds=0; fi
  text=$(head -c 200000 "$work/$name.log" 2>/dev/null)
  while IFS= read -r line; do
    case $line in *"test cases:"* | *"assertions:"*) summary+="${line#*\] }; " ;; esac
  done <<<"$text"
  case $code in
    0)
      # A program that says nothing of doctest's has tested nothing.
      outcome=FAILED
      if [ -n "$summary" ]; then outcome=passed passed=$((passed + 1)); else wrong+=("$name"); fi
      ;;
    124 | 137) outcome="cut off" unfinished+=("$name") ;;
    *) outcome=FAILED wrong+=("$name") ;;
  esac
  summary=${summary%; }
  echo "| $name | $outcome | $seconds | ${summary//|/,} |"
  result "{\"name\": \"$name\", \"outcome\": \"$outcome\", \"seconds\": $seconds, \"summary\": $(json_string "$summary")}"
}

# run_test PROGRAM: in a shell of its own.
run_test() {
  local start=$SECONDS
  end_with_children
  limited "$test_limit" "$bin/$1" >"$work/$1.log" 2>&1
  echo "$? $((SECONDS - start))" >"$work/$1.status"
}

correctness() {
  local names=() name known jobs passed=0 wrong=() unfinished=() test_limit=$((budget / 4))
  local first=(test_ghost_norm test_instantiate_norm test_weighted_sum test_attention test_products test_training
    test_training_sums test_graph test_training_certificate)
  for name in "${first[@]}"; do
    if [ -x "$bin/$name" ]; then names+=("$name"); fi
  done
  for name in "$bin"/test_*; do
    name=${name##*/} known=" ${names[*]} "
    if [ -x "$bin/$name" ] && [[ $known != *" $name "* ]]; then names+=("$name"); fi
  done
  if [ ${#names[@]} -eq 0 ]; then
    left_out "no test is in this bundle"
    return
  fi
  jobs=$(nproc)
  if [ "$jobs" -gt 6 ]; then jobs=6; fi
  for name in "${names[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    run_test "$name" &
  done
  wait
  echo "| program | outcome | s | doctest |"
  echo "|---|---|---|---|"
  for name in "${names[@]}"; do test_line "$name"; done
  echo
  echo "$passed of ${#names[@]} programs passed, $jobs at a time."
  echo
  if [ ${#unfinished[@]} -gt 0 ]; then cut_off "$(join ', ' "${unfinished[@]}")"; fi
  for name in "${wrong[@]}"; do
    failed "$name: what differed, and by how much"
    quote "$(head -n 120 "$work/$name.log")"
    result "{\"name\": \"$name\", \"output\": $(json_string "$(head -n 120 "$work/$name.log")")}"
  done
}

# Times first: the host takes longer to compare the results of big shapes than the GPU to find them.
kernels() {
  local round rounds=3 skip=(--skip-checks) files=() code
  if [ -n "$emulated" ]; then rounds=2; fi
  has bench_cuda_kernels || return
  for ((round = 1; round <= rounds; ++round)); do
    if [ "$(left)" -le 0 ]; then
      cut_off "before round $round of $rounds"
      break
    fi
    if [ "$round" -eq $rounds ]; then skip=(); fi
    limited "$(left)" "$bin/bench_cuda_kernels" "${tiny[@]}" "${skip[@]}" --json "$work/kernels.$round.json" >"$work/output"
    code=$?
    if [ -s "$work/kernels.$round.json" ]; then files+=("$work/kernels.$round.json"); fi
    if [ -z "$python" ] || [ $code -ne 0 ]; then cat "$work/output" && echo; fi
    outcome $code "round $round of bench_cuda_kernels"
    data "round $round" "$work/kernels.$round.json"
  done
  if [ -n "$python" ] && [ ${#files[@]} -gt 0 ]; then
    "$python" "$here/tools/bench/cuda/kernel_table.py" --ceilings "$work/ceilings.json" "${files[@]}" || failed "kernel_table.py"
  fi
}

steps() {
  local models=(small medium) model dtype count=4 share shape
  has bench_cuda_step || return
  if [ -n "$emulated" ]; then models=(tiny) count=2; fi
  for dtype in bf16 f16; do
    for model in "${models[@]}"; do
      case $model in
        tiny) shape=(--tiny) ;;
        small) shape=(--repetitions 5) ;;
        medium) shape=(--repetitions 5 --width 1024 --layers 24 --heads 16) ;;
      esac
      share=$(($(left) / count))
      count=$((count - 1))
      limited "$share" "$bin/bench_cuda_step" "${shape[@]}" --dtype "$dtype" --graphs --json "$work/step.$model.$dtype.json"
      outcome $? "GPT-2 $model in $dtype"
      echo
      data "$model, $dtype" "$work/step.$model.$dtype.json"
    done
  done
}

# losses_of FILE: sets `losses`, in thousandths, and `epsilons`, of the lines that train_gpt prints.
losses_of() {
  local line loss
  losses=() epsilons=''
  while IFS= read -r line; do
    if [[ $line =~ ^step\ .*held-out\ loss\ ([0-9]+)\.([0-9]{3}).*epsilon\ ([^ ]+) ]]; then
      loss=${BASH_REMATCH[1]}${BASH_REMATCH[2]}
      losses+=("$((10#$loss))")
      epsilons+="${BASH_REMATCH[3]} "
    fi
  done <"$1"
}

# Both devices continue one private run with the same weights. On another device than the checkpoint's a run draws other
# records and other noise; so every record is in every step, and there is next to no noise. In f32 the devices differ by
# rounding, far below the printed digit. In bf16 the stored logits are rounded to 2^-9 of their size on both: by one spacing
# of a bf16 number of the loss's size (2^-8) its mean does not move.
training() {
  local dtype number line k difference bound agree here_losses here_epsilons code train
  has train_gpt || return
  for number in 0 1 2 3 4; do
    for line in "In the beginning was the word" "and the light shines" "there was a man" "all things were made" "he came"; do
      echo "$line $number"
    done
  done >"$work/text_records"
  echo "| dtype | losses, CPU | losses, GPU | epsilons, CPU | epsilons, GPU | |"
  echo "|---|---|---|---|---|---|"
  for dtype in f32 bf16; do
    train=("$bin/train_gpt" "--data=$work/text_records" "--dtype=$dtype" --steps=3 --batch=24 --physical-batch=4
      --width=32 --layers=1 --heads=2 --context=16 --evaluate-every=1 --evaluate-records=4 --threads=1 --lines=0
      --learning-rate=0.01 --warm-up=1 --noise-multiplier=1e-6)
    limited 60 "${train[@]}" "--output=$work/start" --stop-after=0 >"$work/start.log" &&
      limited 60 "${train[@]}" "--output=$work/cpu" "--resume=$work/start/checkpoint.safetensors" --device=cpu >"$work/cpu.log" &&
      limited 60 "${train[@]}" "--output=$work/cuda" "--resume=$work/start/checkpoint.safetensors" --device=cuda >"$work/cuda.log"
    code=$?
    if [ $code -ne 0 ]; then
      echo
      outcome $code "train_gpt in $dtype"
      return
    fi
    losses_of "$work/cpu.log"
    here_losses=("${losses[@]}") here_epsilons=$epsilons
    losses_of "$work/cuda.log"
    agree=agree
    if [ ${#losses[@]} -ne 3 ] || [ ${#here_losses[@]} -ne 3 ] || [ "$epsilons" != "$here_epsilons" ]; then agree=DIFFER; fi
    for k in "${!losses[@]}"; do
      difference=$((losses[k] - ${here_losses[k]:-0}))
      bound=1
      if [ $dtype = bf16 ]; then bound=$((losses[k] / 256)); fi
      if [ ${difference#-} -gt $bound ]; then agree=DIFFER; fi
    done
    echo "| $dtype | ${here_losses[*]} | ${losses[*]} | $here_epsilons | $epsilons | $agree |"
    result "{\"name\": \"$dtype\", \"cpu_milli_losses\": [$(join ', ' "${here_losses[@]}")],
 \"gpu_milli_losses\": [$(join ', ' "${losses[@]}")], \"agree\": $(truth "$agree" = agree)}"
    if [ "$agree" != agree ]; then state=failed; fi
  done
  printf '\n%s\n\n' "Losses in thousandths. Bound: 1 in f32, 2^-8 of the loss in bf16."
}

tools() {
  local what name code part
  if [ -n "$emulated" ]; then
    left_out "these tools need a GPU"
    return
  fi
  has bench_cuda_kernels || return
  find_tool compute-sanitizer
  if [ -z "$tool" ]; then
    left_out "compute-sanitizer was not found"
  else
    for what in memcheck racecheck initcheck; do
      for name in kernels step; do
        part=$(($(left) / 4))
        limited "$part" "$tool" --tool "$what" --error-exitcode 9 --print-limit 5 "$bin/bench_cuda_$name" --tiny \
          >"$work/output" 2>&1
        code=$?
        echo "$what, bench_cuda_$name --tiny: status $code"
        echo
        if [ $code -ne 0 ]; then quote "$(tail -n 40 "$work/output")"; fi
        outcome $code "$what of bench_cuda_$name"
        result "{\"name\": \"$what, $name\", \"status\": $code}"
      done
    done
  fi
  find_tool ncu
  if [ -z "$tool" ]; then
    left_out "ncu was not found"
    return
  fi
  for name in ghost_norm:GhostNormTiles instantiate_norm:InstantiateNormTiles weighted_sum:WeightedSum; do
    what=${name#*:}
    limited "$(($(left) / 2))" "$tool" --kernel-name-base demangled --kernel-name "regex:$what" --launch-count 1 --kill yes \
      --clock-control none --section SpeedOfLight --section MemoryWorkloadAnalysis --section ComputeWorkloadAnalysis \
      --section Occupancy --section LaunchStats --section WarpStateStats \
      "$bin/bench_cuda_kernels" --only "${name%:*}" --repetitions 1 --skip-checks \
      >"$work/output" 2>&1
    code=$?
    echo "ncu, $what:"
    quote "$(tail -n 110 "$work/output")"
    if [ $code -eq 124 ]; then cut_off "ncu of $what"; fi
    result "{\"name\": \"ncu, $what\", \"output\": $(json_string "$text")}"
  done
}

torch_peer() {
  if [ -z "$python" ] || ! limited 60 "$python" -c "import torch" 2>/dev/null; then
    left_out "no python3 with PyTorch"
    return
  fi
  # PyTorch brings libraries of its own: where ours are is for our programs alone.
  limited "$(left)" env "LD_LIBRARY_PATH=$given_library_path" "$python" "$here/tools/bench/cuda/torch_peer.py" "${tiny[@]}" \
    --programs "$bin" --library-path "$LD_LIBRARY_PATH" --seconds "$(left)" --json "$work/torch.json"
  outcome $? "torch_peer.py"
  data "PyTorch" "$work/torch.json"
}

predictions() {
  local files=() file
  for file in "$work"/step.*.json "$work"/kernels.1.json; do
    if [ -s "$file" ]; then files+=("$file"); fi
  done
  if [ -z "$python" ]; then
    left_out "no python3"
  elif [ ${#files[@]} -eq 0 ]; then
    left_out "nothing was measured"
  else
    limited 60 "$python" "$here/tools/bench/cuda/beside.py" "${files[@]}"
    outcome $? "beside.py"
  fi
}
