# SPDX-License-Identifier: Apache-2.0
"""Checks the zoo on the emulator: the right programs are right in every order, and every bug of planted.cu is found by the
report named in the table below, while its repaired twin raises none. The README's table of bugs must be this one.

usage: check_zoo.py LIBRARIES PROGRAM...    programs are told apart by their names
       check_zoo.py --table                 prints the table for the README
environment: ZOO_ONLY=TEXT                  only bugs with TEXT in their name
"""
import os
import re
import subprocess
import sys
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
README = os.path.join(os.path.dirname(HERE), 'README.md')
ORDERS = ['forward', 'reverse', 'priority:1', 'priority:2', 'priority:3']

# Orders, timings of cp.async and devices under which a right program must print ALL OK.
MODES = [{'EMU_ORDER': order, 'EMU_CPASYNC': timing, 'EMU_POISON': '1'} for order in ORDERS for timing in ('wait', 'issue')]
MODES += [{'EMU_DEVICE': device} for device in ('sm_90', 'sm_100')]
MODES += [{'EMU_THREADS': '2'}, {'EMU_RACE': '1', 'EMU_POISON': '1'}, {'EMU_RACE': '2'}, {'EMU_COUNT': '1'}]
# What a program must print besides.
OUTPUT = {'language': 'device prints 42 2.500 text 1234567890123 x%\n'}


@dataclass
class Bug:
    """A case of planted.cu. kind: RACE and UNINITIALISED (found with EMU_RACE=1), ERROR of device code, CALL of the API or a
    launch that is refused. text: the report after the kernel's name, ... for what varies. status: what is printed."""

    name: str
    what: str
    kind: str
    text: str
    status: str = 'cudaSuccess'
    kernel: str = ''

    @property
    def settings(self):
        return {'EMU_RACE': '1'} if self.kind in ('RACE', 'UNINITIALISED') else {}

    @property
    def of_device_code(self):
        return self.kind != 'CALL'

    @property
    def report(self):
        """Regular expression of the report."""
        text = '.*'.join(map(re.escape, self.text.split('...')))
        if not self.of_device_code:
            return rf'EMU ERROR: {text}'
        return rf'EMU {self.kind}: kernel \S*{self.kernel or self.name}\S*: {text}'


ADDRESS, FAILURE = 'cudaErrorIllegalAddress', 'cudaErrorLaunchFailure'
WRITES = 'write after unsynchronised write (different value)'
PLANTED = [
    Bug('missing_barrier', 'no barrier between write and read', 'RACE', 'read after unsynchronised write'),
    Bug('write_after_read', 'no barrier before the next round writes', 'RACE', 'write after unsynchronised read'),
    Bug('weak_async_wait', 'waits for one group of cp.async too few', 'RACE', 'read of bytes of a cp.async in flight'),
    Bug('missing_async_barrier', 'no barrier after the wait for cp.async', 'RACE', 'read after unsynchronised write'),
    Bug('non_atomic_add', 'plain addition to a shared counter', 'RACE', 'read after unsynchronised write'),
    Bug('blocks_write_same', 'all blocks write one element', 'RACE', WRITES),
    Bug('shared_write_write', 'two threads write one element', 'RACE', WRITES),
    Bug('wrong_fragment_index', 'mma results stored at wrong columns', 'RACE', WRITES),
    Bug('missing_fence', 'no fence before the last block reads', 'RACE', 'read after unsynchronised write'),
    Bug('uninitialised_shared_read', 'an element nobody wrote', 'UNINITIALISED', 'read of shared memory that no thread'),
    Bug('global_out_of_bounds', '<= for <', 'ERROR', 'out of bounds: 4-byte access at byte 1024 of', ADDRESS),
    Bug('inlined_store', 'the same in an inlined function', 'ERROR', 'out of bounds: ... (from planted.cu:', ADDRESS),
    Bug('before_the_array', 'index -1', 'ERROR', 'out of bounds: ... 4 bytes before cudaMalloc', ADDRESS),
    Bug('shared_out_of_bounds', 'dynamic shared memory too short', 'ERROR', 'shared memory access out of bounds', ADDRESS),
    Bug('null_pointer', 'null pointer', 'ERROR', 'null-ish pointer', ADDRESS, 'use_after_free'),
    Bug('use_after_free', 'memory freed before the launch', 'ERROR', 'use after free: byte 0 of freed cudaMalloc', ADDRESS),
    Bug('misaligned_vector_load', 'float4 at 4 bytes', 'ERROR', 'misaligned address', 'cudaErrorMisalignedAddress'),
    Bug('divergent_barrier', 'halves of a warp at two barriers', 'ERROR', 'divergent barrier', FAILURE),
    Bug('half_warp_shuffle', 'full mask in half a warp', 'ERROR', 'thread exits while other lanes wait', FAILURE),
    Bug('missing_lane', 'mask without the own lane', 'ERROR', 'lane is not in its own member mask', FAILURE),
    Bug('exited_lane', 'mask names a lane that has returned', 'ERROR', 'thread exits while other lanes wait', FAILURE),
    Bug('mismatched_collectives', 'shuffle meets vote', 'ERROR', 'mismatched warp collectives', FAILURE),
    Bug('deadlock', 'warps wait at two barriers', 'ERROR', 'deadlock: ... wait at barrier ... wait at barrier', FAILURE),
    Bug('skipped_barrier', 'a lane at the barrier, others vote', 'ERROR', 'deadlock: ... wait at warp collective', FAILURE),
    Bug('failed_assert', 'assert', 'ERROR', 'assertion `...` failed at', 'cudaErrorAssert'),
    Bug('too_many_bytes', '64 KiB of shared memory, not opted in', 'CALL', '...: shared memory: 0 static + 65536 dynamic'),
    Bug('double_free', 'freed twice', 'CALL', 'cudaFree: double free of cudaMalloc'),
    Bug('copy_too_long', 'copy beyond the allocation', 'CALL', 'cudaMemcpy: out of bounds: 1028-byte access'),
    Bug('allocation_in_capture', 'cudaMalloc while capturing', 'CALL', 'cudaMalloc: not permitted while a stream captures'),
    Bug('unmodelled_call', 'a call that is not modelled', 'CALL', 'cudaGraphCreate: this call is not modelled'),
]

REPORT = re.compile(r'EMU (ERROR|FATAL|UNINITIALISED: kernel|RACE: kernel).*')
LINE = re.compile(r'planted\.cu:(\d+)')


def table():
    """The table of bugs as it stands in the README."""
    rows = ['| bug | what is wrong | report |', '| --- | --- | --- |']
    return rows + [f'| `{b.name}` | {b.what} | {b.kind}: {b.text} |' for b in PLANTED]


def check_readme():
    with open(README, encoding='utf-8') as file:
        lines = file.read().split('\n')
    wrong = [row for row in table() if row not in lines]
    rows = [line for line in lines if re.match(r'\| `\w+` \|.*\| (RACE|UNINITIALISED|ERROR|CALL): ', line)]
    wrong += [row for row in rows if row not in table()]
    print('BAD' if wrong else 'ok ', 'table of bugs in the README', *wrong, sep='\n' if wrong else ' ')
    return bool(wrong)


def lines_of_kernel(name):
    """Lines of planted.cu at which the kernel stands."""
    with open(os.path.join(HERE, 'planted.cu'), encoding='utf-8') as file:
        lines = file.read().split('\n')
    start = next(i for i, line in enumerate(lines) if f'void {name}(' in line)
    return range(start + 1, lines.index('}', start) + 2)


def run(libraries, command, settings):
    env = {k: v for k, v in os.environ.items() if not k.startswith('EMU_') or k in ('EMU_CACHE', 'EMU_JOBS', 'EMU_CXX')}
    env.update(settings, LD_LIBRARY_PATH=libraries)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


def check_program(libraries, program):
    """Number of modes under which the program is wrong."""
    wrong, name = 0, os.path.basename(program)
    for mode in MODES:
        code, out, err = run(libraries, [program], {'EMU_PREBUILD': 'all', **mode})
        good = code == 0 and 'ALL OK' in out and OUTPUT.get(name, '') in out and not REPORT.search(err)
        wrong += not good
        print('ok ' if good else 'BAD', name, mode)
        if not good:
            print(out, err)
    return wrong


def check_bug(libraries, program, bug):
    """Problems found, as a list of texts."""
    problems = []
    settings = {'EMU_PREBUILD': 'all', 'EMU_POISON': '1', **bug.settings}
    _, out, err = run(libraries, [program, bug.name, 'bug'], settings)
    if not re.search(bug.report, err):
        problems.append(f'not found: expected {bug.report}, got {err or "no report"}')
    if f'{bug.name}: {bug.status}' not in out:
        problems.append(f'expected status {bug.status}, got {out}')
    if bug.of_device_code:
        kernel = lines_of_kernel(bug.kernel or bug.name)
        if not any(int(line) in kernel for line in LINE.findall(err)):
            problems.append(f'expected a line in {kernel}, got {err}')
    code, out, err = run(libraries, [program, bug.name, 'right'], {**settings, 'EMU_RACE': '1'})
    if code != 0 or REPORT.search(err) or f'{bug.name}: cudaSuccess' not in out:
        problems.append(f'repaired twin is reported: {out}{err}')
    return problems


def main(arguments):
    if arguments == ['--table']:
        print('\n'.join(table()))
        return 0
    libraries, *programs = map(os.path.abspath, arguments)
    wanted = os.environ.get('ZOO_ONLY', '')
    wrong = check_readme()
    for program in programs:
        if os.path.basename(program) != 'planted':
            wrong += 0 if wanted else check_program(libraries, program)
            continue
        for bug in PLANTED:
            if wanted in bug.name:
                problems = check_bug(libraries, program, bug)
                wrong += bool(problems)
                print('BAD' if problems else 'ok ', 'planted', bug.name, *problems)
    print('SOME BAD' if wrong else 'ALL OK')
    return wrong != 0


sys.exit(main(sys.argv[1:]))
