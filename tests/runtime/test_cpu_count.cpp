// SPDX-License-Identifier: Apache-2.0
// How many threads a context takes when nobody says: the environment, the affinity and the container's quota.
#include <doctest/doctest.h>
#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

#include "dpmp/runtime/context.hpp"
#include "support/temporary_folder.hpp"

using namespace dpmp;

namespace {
/// OMP_NUM_THREADS is this, or not set, until the end of the scope.
class Asked {
 public:
  explicit Asked(const char* value) {
    if (const char* old = std::getenv("OMP_NUM_THREADS")) before_ = old;
    set(value);
  }
  ~Asked() { set(before_ ? before_->c_str() : nullptr); }
  Asked(const Asked&) = delete;
  Asked& operator=(const Asked&) = delete;

 private:
  static void set(const char* value) { value ? setenv("OMP_NUM_THREADS", value, 1) : unsetenv("OMP_NUM_THREADS"); }
  std::optional<std::string> before_;
};

/// The files of a system below a folder.
class System {
 public:
  void file(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((folder_ / path).parent_path());
    test::write_text(folder_ / path, text);
  }
  double cpus() const { return detail::cgroup_cpus(folder_.path().string()); }

 private:
  test::TemporaryFolder folder_;
};
}  // namespace

TEST_CASE("OMP_NUM_THREADS decides, with the first number of its list; what is no such list is left aside") {
  CHECK(detail::threads_asked_for("3") == 3);
  CHECK(detail::threads_asked_for(" 5 ") == 5);
  CHECK(detail::threads_asked_for("4,2") == 4);
  CHECK(detail::threads_asked_for("4 , 2,1") == 4);
  for (const char* wrong : {"", " ", "0", "-2", "two", "4x", "4,", ",4", "4,0", "4 2", "99999999999999999999"})
    CHECK(detail::threads_asked_for(wrong) == 0);
  CHECK(detail::threads_asked_for(nullptr) == 0);
  {
    const Asked three("3");
    CHECK(default_threads() == 3);
    CHECK(Context(Device::cpu()).threads() == 3);
    CHECK(Context(Device::cpu(), 2).threads() == 2);
  }
  const Asked nobody(nullptr);
  const int free_choice = default_threads();
  const Asked nonsense("many");
  CHECK(default_threads() == free_choice);
}

TEST_CASE("without a word of the environment the affinity limits the number") {
  const Asked nobody(nullptr);
  cpu_set_t all, one;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  CHECK(default_threads() <= CPU_COUNT(&all));
  CHECK(default_threads() >= 1);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &all)) {
      CPU_SET(cpu, &one);
      break;
    }
  REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
  const int found = default_threads();
  REQUIRE(sched_setaffinity(0, sizeof all, &all) == 0);
  CHECK(found == 1);
}

TEST_CASE("a quota of version 2 is read at every level of the process' group") {
  const System none, unlimited, own, parent, container;
  CHECK(none.cpus() == 0);
  unlimited.file("proc/self/cgroup", "0::/a/b\n");
  unlimited.file("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  CHECK(unlimited.cpus() == 0);
  own.file("proc/self/cgroup", "0::/a/b\n");
  own.file("sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
  own.file("sys/fs/cgroup/a/cpu.max", "max 100000\n");
  CHECK(own.cpus() == 1.5);
  parent.file("proc/self/cgroup", "0::/a/b\n");
  parent.file("sys/fs/cgroup/a/b/cpu.max", "800000 100000\n");
  parent.file("sys/fs/cgroup/a/cpu.max", "300000 100000\n");
  CHECK(parent.cpus() == 3);
  container.file("proc/self/cgroup", "0::/\n");
  container.file("sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(container.cpus() == 0.5);
}

TEST_CASE(
    "a quota of version 1 is read by either name of its controller, and where a container sees its group as the root") {
  const System joined, alone, host_path, unlimited, other;
  joined.file("proc/self/cgroup", "5:memory:/x\n3:cpu,cpuacct:/docker/c1\n0::/\n");
  joined.file("sys/fs/cgroup/cpu,cpuacct/docker/c1/cpu.cfs_quota_us", "250000\n");
  joined.file("sys/fs/cgroup/cpu,cpuacct/docker/c1/cpu.cfs_period_us", "100000\n");
  CHECK(joined.cpus() == 2.5);
  alone.file("proc/self/cgroup", "3:cpuacct,cpu:/g\n");
  alone.file("sys/fs/cgroup/cpu/g/cpu.cfs_quota_us", "40000\n");
  alone.file("sys/fs/cgroup/cpu/g/cpu.cfs_period_us", "20000\n");
  CHECK(alone.cpus() == 2);
  host_path.file("proc/self/cgroup", "3:cpu,cpuacct:/kubepods/pod1/c9\n");
  host_path.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
  host_path.file("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  CHECK(host_path.cpus() == 4);
  unlimited.file("proc/self/cgroup", "3:cpu,cpuacct:/g\n");
  unlimited.file("sys/fs/cgroup/cpu,cpuacct/g/cpu.cfs_quota_us", "-1\n");
  unlimited.file("sys/fs/cgroup/cpu,cpuacct/g/cpu.cfs_period_us", "100000\n");
  CHECK(unlimited.cpus() == 0);
  other.file("proc/self/cgroup", "3:cpuset:/g\nnonsense\n");
  other.file("sys/fs/cgroup/cpuset/g/cpu.cfs_quota_us", "100000\n");
  other.file("sys/fs/cgroup/cpuset/g/cpu.cfs_period_us", "100000\n");
  CHECK(other.cpus() == 0);
}
