// SPDX-License-Identifier: Apache-2.0
// The page about a run: well-formed, self-contained, with the plan's numbers; what a user supplies stays text; and no number
// about private records is in it unless somebody asked for that, which the statement then says (P19).
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <regex>

#include "dpmp/dp/guarantee_curves.hpp"
#include "dpmp/dp/report_json.hpp"
#include "dpmp/train/report.hpp"
#include "support/errors.hpp"
#include "support/markup.hpp"
#include "support/process.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_training.hpp"

using namespace dpmp;
using train::Progress;
using train::ReportOptions;

namespace {
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
double number(const std::string& text) {
  double x = NAN;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  REQUIRE((error == std::errc() && end == text.data() + text.size()));
  return x;
}
dp::Plan some_plan(test::Rng& rng) {
  dp::PlanOptions o{.delta = std::pow(10.0, -rng.uniform(4, 7)),
                    .sampling_rate = rng.uniform(0.01, 0.1),
                    .steps = rng.integer(20, 200),
                    .clip_threshold = rng.uniform(0.1, 2),
                    .dataset_size = rng.integer(1000, 100000)};
  return dp::Plan::with_noise_multiplier(o, rng.uniform(0.7, 1.5));
}
std::vector<Progress> some_history(test::Rng& rng, index_t steps) {
  std::vector<Progress> history;
  for (index_t step = 1; step <= steps; ++step) {
    Progress p{.step = step, .held_out_loss = rng.uniform(1, 5)};
    p.more = {{"accuracy", rng.uniform()}, {train::peak_bytes_name, rng.uniform(1e6, 1e9)}};
    history.push_back(p);
  }
  return history;
}
/// The second cell of a table's row by the first.
std::map<std::string, std::string> rows_of(const std::string& page) {
  std::map<std::string, std::string> rows;
  const std::regex row("<tr><th class=\"user\">([^<]*)</th><td class=\"[a-z]*\"[^>]*>([^<]*)</td>");
  for (std::sregex_iterator at(page.begin(), page.end(), row), end; at != end; ++at)
    CHECK(rows.emplace((*at)[1], (*at)[2]).second);
  return rows;
}
std::vector<std::string> titles_of(const std::string& page) {
  std::vector<std::string> titles;
  for (const test::Element& e : test::Markup(page).named("figcaption")) titles.push_back(e.text);
  return titles;
}
/// Nothing is fetched, and nothing runs.
void check_self_contained(const std::string& page) {
  const test::Markup markup(page);
  for (const test::Element& e : markup.elements()) {
    CAPTURE(e.name);
    for (const char* loads :
         {"link", "img", "iframe", "object", "embed", "form", "base", "audio", "video", "a", "image", "use"})
      CHECK(e.name != loads);
    for (const auto& [name, value] : e.attributes) {
      CHECK_FALSE((name == "src" || name == "href" || name == "style" || name.starts_with("on")));
      if (name != "xmlns") CHECK_FALSE(has(value, "://"));
    }
    if (e.name == "script") CHECK(e.attributes.at("type") == "application/json");
    if (e.name == "style")
      for (const char* part : {"url(", "@import", "</", "expression"}) CHECK_FALSE(has(e.text, part));
  }
}
}  // namespace

TEST_CASE("the page of a plan: well-formed, self-contained, with every number of the plan, its statement and its JSON") {
  test::Rng rng;
  for (int trial = 0; trial < 4; ++trial) {
    const dp::Plan plan = some_plan(rng);
    const index_t steps = rng.integer(0, plan.steps());
    const std::vector<Progress> history = some_history(rng, steps);
    const std::string page =
        train::report_html(plan, steps, {}, history, {.title = "A run", .about = {{"model", "an MLP"}}});
    check_self_contained(page);
    const test::Markup markup(page);

    auto rows = rows_of(page);
    CHECK(number(rows["epsilon"]) == plan.epsilon());
    CHECK(number(rows["delta"]) == plan.options().delta);
    CHECK(number(rows["sampling rate"]) == plan.options().sampling_rate);
    CHECK(number(rows["noise multiplier"]) == plan.noise_multiplier());
    CHECK(number(rows["noise standard deviation"]) == plan.noise_standard_deviation());
    CHECK(number(rows["clip threshold"]) == plan.options().clip_threshold);
    CHECK(number(rows["sensitivity"]) == plan.sensitivity().bound);
    CHECK(number(rows["rho"]) == plan.facts().rho);
    CHECK(number(rows["expected batch"]) == plan.expected_batch());
    CHECK(rows["batch bound"] == std::to_string(plan.facts().batch_bound));
    CHECK(rows["steps"] == std::to_string(plan.steps()));
    CHECK(rows["dataset size"] == std::to_string(plan.options().dataset_size));
    CHECK(rows["relation"] == "add_or_remove_one");
    CHECK(rows["model"] == "an MLP");
    CHECK(rows["dpmp"] == DPMP_VERSION_STRING);

    // The words are the statement's, and the number to see first is its epsilon.
    std::string words;
    for (const test::Element& e : markup.named("dd")) words += e.text + ' ';
    for (const auto& [title, text] : dp::statement_parts(dp::privacy_statement(plan, steps)))
      CHECK(has(words, text.substr(1)));
    CHECK(has(words, dp::rounded_up(plan.epsilon_after(steps), 4)));
    CHECK(markup.named("script").front().text == '\n' + dp::report_json(plan, steps));
    CHECK(markup.named("title").front().text == "A run");

    std::vector<std::string> wanted{"Epsilon against steps"};
    if (steps > 0)
      wanted.insert(wanted.end(),
                    {"Delta against epsilon", "Trade-off of a membership test", "Held-out loss", "accuracy", "Memory"});
    CHECK(titles_of(page) == wanted);
    // The last held-out loss stands in the table of its plot.
    if (steps > 0) {
      char text[32];
      std::snprintf(text, sizeof text, "%.6g", *history.back().held_out_loss);
      CHECK(has(page,
                "<tr><td class=\"number\">" + std::to_string(steps) + "</td><td class=\"number\">" + text + "</td></tr>"));
    }
  }
}

TEST_CASE("every option of a plan of any kind is a row of the page") {
  dp::PlanOptions o{.delta = 1e-5, .sampling_rate = 0.02, .steps = 100, .dataset_size = 2000};
  o.group_thresholds = {0.5, 0.25};
  o.clip_rule = dp::ClipRule::automatic(0.05);
  o.noise_schedule = dp::Schedule::piecewise({{0, 1.0}, {10, 0.5}});
  auto rows = rows_of(train::report_html(dp::Plan::with_noise_multiplier(o, 1), 10, {}, {}, {}));
  CHECK(rows["group threshold"] == "0.5, 0.25");
  CHECK(rows["noise schedule"] == "1 from step 0, 0.5 from step 10");
  CHECK(rows["clip schedule"] == "none");
  CHECK(rows["clip rule"] == "automatic");
  CHECK(rows["parameter of the rule"] == "0.05");
  CHECK_FALSE(rows.contains("clip threshold"));
  o = {.delta = 1e-5, .sampling_rate = 0.02, .steps = 100, .dataset_size = 2000};
  o.adaptive = dp::AdaptiveOptions{.quantile = 0.7, .learning_rate = 0.1, .count_noise = 10, .initial_threshold = 0.125};
  rows = rows_of(train::report_html(dp::Plan::with_noise_multiplier(o, 1), 10, {}, {}, {}));
  CHECK(rows["adaptive"] == "yes");
  CHECK(rows["adaptive quantile"] == "0.7");
  CHECK(rows["adaptive initial threshold"] == "0.125");
}

TEST_CASE("what a user supplies is text on the page, whatever it says") {
  test::Rng rng;
  const dp::Plan plan = some_plan(rng);
  const std::string attack = "</title></script><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;\xff";
  const auto page_of = [&](const std::string& text) {
    Progress p{.step = 1, .held_out_loss = 2};
    p.more = {{text, 0.5}};
    return train::report_html(plan, 1, {}, std::vector{p}, {.title = text, .about = {{text, text}}});
  };
  const std::string page = page_of(attack), plain = page_of("words");
  check_self_contained(page);
  const test::Markup markup(page), harmless(plain);
  REQUIRE(markup.elements().size() == harmless.elements().size());
  for (std::size_t k = 0; k < markup.elements().size(); ++k) CHECK(markup.elements()[k].name == harmless.elements()[k].name);
  const std::string shown = attack.substr(0, attack.size() - 1) + "\xef\xbf\xbd";
  CHECK(markup.named("h1").front().text == shown);
  CHECK(titles_of(page).back() == shown);
}

TEST_CASE("parsers of XML and of HTML read the page as the test does") {
  const test::TemporaryFolder folder;
  test::Rng rng;
  const dp::Plan plan = some_plan(rng);
  test::write_text(folder / "page.html", train::report_html(plan, 10, {}, some_history(rng, 10), {.title = "<&>\x01"}));
  const std::string script =
      "import sys, xml.dom.minidom, html.parser\n"
      "text = open(sys.argv[1], encoding='utf-8').read()\n"
      "xml.dom.minidom.parseString(text.encode())\n"
      "class Parser(html.parser.HTMLParser):\n"
      "  open = []\n"
      "  def handle_starttag(self, tag, attributes): tag in ('meta',) or self.open.append(tag)\n"
      "  def handle_startendtag(self, tag, attributes): pass\n"
      "  def handle_endtag(self, tag): assert self.open.pop() == tag, tag\n"
      "parser = Parser()\n"
      "parser.feed(text)\n"
      "parser.close()\n"
      "assert parser.open == []\n"
      "print('read')\n";
  test::Process python({"/usr/bin/env", "python3", "-c", script, (folder / "page.html").string()}, folder.path());
  const int code = python.wait();
  if (code == 127) {
    MESSAGE("skipped: there is no python3");
    return;
  }
  CHECK_MESSAGE(code == 0, python.error());
  CHECK(python.out() == "read\n");
}

TEST_CASE("P19: times of private steps are on the page only if somebody asks, and the statement says so") {
  test::Rng rng;
  const dp::Plan plan = some_plan(rng);
  std::vector<Progress> history = some_history(rng, 5);
  for (Progress& p : history) p.more.emplace_back(train::records_per_second_name, 4321.5);
  const std::string page = train::report_html(plan, 5, {}, history, {});
  CHECK_FALSE(has(page, "4321.5"));
  CHECK_FALSE(has(page, "records a second"));
  CHECK_FALSE(has(page, "Unsafe"));
  const std::string asked = train::report_html(plan, 5, {}, history, {.times_of_private_steps = true});
  CHECK(has(asked, "4321.5"));
  CHECK(has(asked, "Throughput"));
  CHECK(has(asked, "the time that steps took is told"));
  CHECK(nlohmann::json::parse(test::Markup(asked).named("script").front().text)["notes"]["times_told"] == true);
}

TEST_CASE(
    "P19: norms and clipped shares need unsafe_debug of the run and of the page; their numbers are those of the draws") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  for (const bool debug : {false, true}) {
    test::TinyTraining run(ctx, DType::f32);
    const dp::Plan plan = test::tiny_plan(run, 20, 5, 2.5);
    const dp::StreamKeys keys = test::random_keys(rng);
    train::Trainer trainer(ctx, run.model.parameters(), plan, keys, run.records(),
                           {.physical_batch = 8, .unsafe_debug = debug});
    std::vector<Progress> history{train::progress_of(trainer, optim::LearningRate::constant(1e-3), 1.0)};
    if (!debug) {
      CHECK(test::refuses([&] { trainer.unsafe_numbers(); }, "expected TrainerOptions::unsafe_debug"));
      const std::string page = train::report_html(trainer, history);
      CHECK_FALSE((has(page, "Unsafe") || has(page, "unsafe_")));
      CHECK(test::refuses([&] { train::report_html(trainer, history, {.unsafe_debug = true}); }, "expected a run with"));
      history[0].more = {{"unsafe_mean_norm", 1}};
      CHECK(
          test::refuses([&] { train::report_html(trainer, history); }, "expected a run with TrainerOptions::unsafe_debug"));
      continue;
    }
    // Batches of one say what the norms are. The certified ones are above, by less than the slack of a small model in f32.
    double sum = 0, largest = 0;
    index_t surely_clipped = 0, maybe_clipped = 0;
    std::vector<index_t> draw = test::drawn(plan, trainer.keys(), run.records(), 0);
    for (const index_t i : draw) {
      const double norm = test::norm(test::batch_of_one(ctx, run.model, run.data.rows(i, i + 1))[0]);
      sum += norm, largest = std::max(largest, norm);
      surely_clipped += norm > 2.5, maybe_clipped += 1.01 * norm > 2.5;
    }
    trainer.step(run.losses());
    const train::UnsafeNumbers numbers = trainer.unsafe_numbers();
    CHECK(numbers.drawn == index_t(draw.size()));
    CHECK(numbers.left_out == 0);
    CHECK(numbers.clipped >= surely_clipped);
    CHECK(numbers.clipped <= maybe_clipped);
    CHECK(numbers.mean_norm * double(draw.size()) >= sum * (1 - 1e-6));
    CHECK(numbers.mean_norm * double(draw.size()) <= 1.01 * sum);
    CHECK(numbers.largest_norm >= largest * (1 - 1e-6));
    CHECK(numbers.largest_norm <= 1.01 * largest);

    history.push_back(train::progress_of(trainer, optim::LearningRate::constant(1e-3), 1.0));
    history.back().more = train::named(numbers);
    for (auto& [name, value] : history.back().more) value = 0.123457;  // a number to look for
    const std::string page = train::report_html(trainer, history);
    CHECK_FALSE(has(page, "0.123457"));
    for (const auto& [name, unused] : train::named(numbers)) CHECK_FALSE(has(page, name));
    CHECK(has(page, "could be read without noise (unsafe_debug)"));
    const std::string asked = train::report_html(trainer, history, {.unsafe_debug = true});
    CHECK(has(asked, "0.123457"));
    for (const char* name : {"drawn", "left_out", "clipped_share", "mean_norm", "largest_norm"})
      CHECK(has(asked, "<figcaption>unsafe_" + std::string(name) + "</figcaption>"));
  }
}

TEST_CASE("a run without privacy has a page that promises nothing, and times") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  test::TinyTraining run(ctx, DType::f32);
  train::Trainer trainer(ctx, run.model.parameters(), train::NoPrivacy{0.5}, test::random_keys(rng), run.records());
  Progress p{.step = 1, .held_out_loss = 2};
  p.more = {{train::records_per_second_name, 4321.5}};
  const std::string page = train::report_html(trainer, std::vector{p});
  check_self_contained(page);
  CHECK(titles_of(page) == std::vector<std::string>{"Held-out loss", "Throughput"});
  CHECK(has(page, "nothing is guaranteed"));
  CHECK(test::Markup(page).named("script").empty());
  const test::TemporaryFolder folder;
  CHECK(test::refuses([&] { train::write_report(folder / "r.json", trainer, {}); }, "expected a report of a private run"));
  CHECK(folder.entries() == 0);
}

TEST_CASE("a report is a file that is there complete: of either kind, or refused before anything is written") {
  Context ctx(Device::cpu(), 1);
  test::Rng rng;
  test::TinyTraining run(ctx, DType::f32);
  train::Trainer trainer(ctx, run.model.parameters(), test::tiny_plan(run, 5), test::random_keys(rng), run.records());
  const test::TemporaryFolder folder;
  train::write_report(folder / "r.html", trainer, {}, {.title = "one"});
  CHECK(test::read_text(folder / "r.html") == train::report_html(trainer, {}, {.title = "one"}));
  train::write_report(folder / "r.html", trainer, {}, {.title = "two"});
  CHECK(test::read_text(folder / "r.html") == train::report_html(trainer, {}, {.title = "two"}));
  train::write_report(folder / "r.json", trainer, {});
  CHECK(test::read_text(folder / "r.json") == dp::report_json(trainer.plan(), 0));
  CHECK(test::refuses([&] { train::write_report(folder / "r.txt", trainer, {}); }, "ends with .html, .htm or .json, got"));
  CHECK(test::refuses([&] { train::write_report(folder / "no" / "r.html", trainer, {}); },
                      "expected a folder that can be written to"));
  CHECK(folder.entries() == 2);
}
