# SPDX-License-Identifier: Apache-2.0
"""scripts/quick_reference: what it makes of declarations, plain and odd ones. python3 test_quick_reference.py"""
import contextlib
import io
import tempfile
import textwrap
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "quick_reference"
loader = SourceFileLoader("quick_reference", str(SCRIPT))
reference = module_from_spec(spec_from_loader("quick_reference", loader))
loader.exec_module(reference)

LICENCE = "// SPDX-License-Identifier: Apache-2.0\n"


def shown(text):
    """{name: lines of code} of the body of a header; overloads follow each other."""
    found = {}
    for item in reference.declarations(textwrap.dedent(text)):
        found.setdefault(item.name, []).extend(reference.declared(item, "", True))
    return found


class Declarations(unittest.TestCase):
    def check(self, text, expected):
        self.assertEqual(shown(text), expected)

    def test_functions(self):
        self.check("""\
            /// Adds.
            DPMP_HD int add(int a, int b = f({1, 2})) { return "}"[0] + '{' + a; }  // not shown
            [[nodiscard]] inline __attribute__((always_inline)) auto twice(std::function<int(int)> f) -> std::vector<int>;
            inline constexpr double one() noexcept(true) { return 1; }
            decltype(auto) pick(char c = ')', const char* text = "(;{");
            long digits(long n = 1'000'000);
            """, {
            "add": ["// Adds.", "int add(int a, int b = f({1, 2}));"],
            "twice": ["auto twice(std::function<int(int)> f) -> std::vector<int>;"],
            "one": ["constexpr double one() noexcept(true);"],
            "pick": ["decltype(auto) pick(char c = ')', const char* text = \"(;{\");"],
            "digits": ["long digits(long n = 1'000'000);"]})

    def test_templates_and_requires(self):
        self.check("""\
            template <class T, class U = std::pair<int, T>>
              requires(sizeof(T) == 4) && std::is_same_v<T, U>
            T first(U u);
            template <class F>
              requires requires(F f) { f(0); typename F::Real; }
            void call(const F& f) { f(0); }
            template <template <class, int> class Span, int... N>
            struct Many {
              Span<float, 1> span;
              void f() requires(N > 2) {}
            };
            template <class T>
            concept Number = requires(T x) { x + x; };
            template <class T>
            inline constexpr bool is_wide = sizeof(T) > 4;
            template <>
            struct Many<X> { int hidden; };
            template <class>
            class Ref;
            template <class R, class... Args>
            class Ref<R(Args...)> {
             public:
              template <class F>
              Ref(F&& f) : f_(f) {}
            };
            """, {
            "first": ["template <class T, class U = std::pair<int, T>> requires(sizeof(T) == 4) && std::is_same_v<T, U>",
                      "T first(U u);"],
            "call": ["template <class F> requires requires(F f) { f(0); typename F::Real; }", "void call(const F& f);"],
            "Many": ["template <template <class, int> class Span, int... N>", "struct Many {", "  Span<float, 1> span;",
                     "  void f() requires(N > 2);", "};"],
            "Number": ["template <class T>", "concept Number = requires(T x) { x + x; };"],
            "Ref": ["template <class R, class... Args>", "class Ref<R(Args...)> {", "  template <class F>",
                    "  Ref(F&& f);", "};"],
            "is_wide": ["template <class T>", "constexpr bool is_wide = sizeof(T) > 4;"]})

    def test_classes(self):
        self.check("""\
            class Forward;
            /// A box.
            ///
            /// Two paragraphs.
            class Box final : public Base<int>, Other {
             public:
              /// From a size.
              explicit Box(int n, Map m = {}) : Base<int>{n}, size_{n}, map_(std::move(m)) { fill(); }
              explicit(false) Box(double x);
              Box(const Box&) = delete;
              Box& operator=(const Box&) = delete;
              Box(Box&& from) noexcept;
              ~Box();
              friend class Forward;
              enum class Kind : std::uint8_t { small, large };
              static Box of(int n) { return Box(n); }
              int size() const& { return size_; }
              /// Fields say more on their line.
              int field = 3;  ///< metres
              double wide{1.0};  // seconds
             protected:
              int hidden_;
             private:
              struct Secret { int x; };
              int size_;
            };
            int Box::outside() { return 1; }
            Box::Kind kind_of(const Box& b);
            """, {
            "Box": ["// A box.", "//", "// Two paragraphs.", "class Box final : public Base<int>, Other {", "  // From a size.",
                    "  explicit Box(int n, Map m = {});", "  explicit(false) Box(double x);",
                    "  enum class Kind : std::uint8_t { small, large };", "  static Box of(int n);", "  int size() const&;", "",
                    "  // Fields say more on their line.", "  int field = 3;  // metres", "  double wide{1.0};  // seconds", "};"],
            "kind_of": ["Box::Kind kind_of(const Box& b);"]})

    def test_operators(self):
        self.check("""\
            struct Point {
              friend bool operator==(const Point&, const Point&) = default;
              std::strong_ordering operator<=>(const Point& other) const;
              float& operator[](int k) { return x[k]; }
              float operator()(int a, int b) const { return a < b ? x[a] : x[b]; }
              explicit operator bool() const { return true; }
              operator const char*() const;
              Point& operator+=(Point p);
              Point operator-() const;
            };
            struct alignas(16) Aligned { int x; };
            std::ostream& operator<<(std::ostream& out, const Point& p) { return out << p.x[0]; }
            Point operator""_mm(long double x);
            bool operator<(Point a, Point b);
            bool operator>(Point a, Point b) { return b < a; }
            """, {
            "Point": ["struct Point {", "  friend bool operator==(const Point&, const Point&);",
                      "  std::strong_ordering operator<=>(const Point& other) const;", "  float& operator[](int k);",
                      "  float operator()(int a, int b) const;", "  explicit operator bool() const;", "  operator const char*() const;",
                      "  Point& operator+=(Point p);", "  Point operator-() const;", "};"],
            "Aligned": ["struct Aligned {", "  int x;", "};"],
            "operator<<": ["std::ostream& operator<<(std::ostream& out, const Point& p);"],
            'operator""_mm': ['Point operator""_mm(long double x);'],
            "operator<": ["bool operator<(Point a, Point b);"],
            "operator>": ["bool operator>(Point a, Point b);"]})

    def test_enums_and_variables(self):
        self.check("""\
            /// What.
            enum class Stream : std::uint32_t {
              noise = 1,  // on the sum
              // Alone.
              sampler = 2,  ///< draws
            };
            using Rule = std::variant<Sgd, AdamW>;
            double *a, *b;
            index_t n = 0, m = 1;
            std::vector<int> x{1, 2}, y{};
            inline constexpr int table[] = {
                1, 2,
            };
            constexpr auto square = [](int x) { return x * x; };
            static_assert(sizeof(int) == 4);
            using namespace std;
            using other::name;
            extern template class Rule<int>;
            void (*write)(std::ostream&, const void*) = nullptr;
            typedef double (*Function)(double);
            struct Packed { unsigned low : 3, high : 5; std::map<int, std::pair<int, int>> m; };
            extern "C" {
            int c_function(void);
            }
            template <class T>
            template <class U>
            int Box<T>::member(U u) { return u < 3 ? 1 : 2; }
            """, {
            "Stream": ["// What.", "enum class Stream : std::uint32_t {", "  noise = 1,  // on the sum", "  // Alone.",
                       "  sampler = 2,  // draws", "};"],
            "Rule": ["using Rule = std::variant<Sgd, AdamW>;"],
            "a": ["double *a, *b;"],
            "n": ["index_t n = 0, m = 1;"],
            "x": ["std::vector<int> x{1, 2}, y{};"],
            "table": ["constexpr int table[] = { 1, 2, };"],
            "square": ["constexpr auto square = [](int x) { return x * x; };"],
            "write": ["void (*write)(std::ostream&, const void*) = nullptr;"],
            "Function": ["typedef double (*Function)(double);"],
            "Packed": ["struct Packed {", "  unsigned low : 3, high : 5;", "  std::map<int, std::pair<int, int>> m;", "};"],
            "c_function": ["int c_function(void);"]})

    def test_preprocessor_and_namespaces(self):
        self.check("""\
            /// Throws.
            #define CHECK(condition, ...) \\
              do { \\
              } while (false)
            #define UNSAID 1
            DPMP_KERNELS_BEGIN
            namespace dpmp::inline DPMP_ABI::dp {
            #if defined(X) && X
            int on(int);
            #elif Y
            int elsewhere(int); {
            #else
            int off(int); {
            #endif
            namespace detail { int secret(); }
            DPMP_ANY_TEAM
            template <class Team>
            DPMP_HD void run(const Team& team);
            #if DPMP_BODIES
            int body() {
            #else
            int interface();
            #endif
            /* a block; */
            }  // namespace
            DPMP_KERNELS_END
            """, {
            "CHECK": ["// Throws.", "CHECK(condition, ...)"],
            "on": ["int on(int);"],
            "run": ["template <class Team>", "void run(const Team& team);"],
            "interface": ["int interface();"]})

    def test_long_lines_are_broken_after_commas(self):
        lines = shown("void f(" + ", ".join(f"const SomeType& argument_{k}" for k in range(9)) + ");")["f"]
        self.assertTrue(len(lines) > 1 and all(len(line) <= 100 for line in lines))
        self.assertTrue(all(line.endswith(",") for line in lines[:-1]))


class Prose(unittest.TestCase):
    def test_markdown_shows_what_is_written(self):
        self.assertEqual(reference.prose([" a <b> *c* and `x < *y`, d * e, __F__ and g_t."]),
                         [r"a \<b> \*c\* and `x < *y`, d * e, \_\_F__ and g_t."])

    def test_no_line_begins_a_list_by_accident(self):
        words = ("word " * 19 + "- 1. # + = end").split()
        for line in reference.filled(words, 100):
            self.assertRegex(line, r"^\w")

    def test_lists_and_formulas_stay(self):
        self.assertEqual(reference.prose([" Text.", " - one", "   more", " - two", "", "   x = y"]),
                         ["Text.", "", "- one more", "- two", "", "```text", "x = y", "```"])


class Page(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.add("core/a.hpp", "// About a.\n#pragma once\nnamespace dpmp {\n/// A thing.\nstruct A { int x; };\n}\n")
        self.add("kernels/k.hpp", "// About k.\n#pragma once\n")

    def add(self, name, text):
        path = self.root / "include" / "dpmp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LICENCE + text)

    def run_script(self, *more):
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            status = reference.main(["--include", str(self.root / "include"), "--output", str(self.root / "page.md"), *more])
        return status, errors.getvalue()

    def test_check_says_whether_the_page_is_current(self):
        self.assertEqual(self.run_script("--check")[0], 1)
        self.assertEqual(self.run_script(), (0, ""))
        self.assertEqual(self.run_script("--check"), (0, ""))
        self.add("core/b.hpp", "// About b.\n#pragma once\nint b();\n")
        status, errors = self.run_script("--check")
        self.assertEqual(status, 1)
        self.assertIn("run scripts/quick_reference", errors)

    def test_what_stands_on_it(self):
        self.run_script()
        page = (self.root / "page.md").read_text()
        self.assertIn("- [a.hpp](#coreahpp): A\n", page)
        self.assertIn("### core/a.hpp\n\nAbout a.\n\n#### A\n\nA thing.\n\n```cpp\nstruct A {\n  int x;\n};\n```\n", page)
        self.assertIn("- `k.hpp`: About k.\n", page)

    def test_a_folder_without_a_topic_and_a_header_that_cannot_be_read_are_named(self):
        self.add("core/broken.hpp", "#pragma once\nint f( {\n")
        with self.assertRaisesRegex(ValueError, "core/broken.hpp"):
            reference.page(self.root / "include")
        self.add("core/broken.hpp", "#pragma once\n")
        self.add("other/x.hpp", "#pragma once\n")
        with self.assertRaisesRegex(ValueError, "other/x.hpp: no topic"):
            reference.page(self.root / "include")


if __name__ == "__main__":
    unittest.main()
