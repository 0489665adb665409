# SPDX-License-Identifier: Apache-2.0
"""Checks the zoo on the emulator: kernels.cu is right in every order, and every bug of planted.cu is found by the report
named in the table below, while its repaired twin raises none.

usage: check_zoo.py LIBRARIES KERNELS PLANTED [FILTER]
"""
import os
import re
import subprocess
import sys

ORDERS = ['forward', 'reverse', 'priority:1', 'priority:2', 'priority:3']

# Orders, timings of cp.async and devices under which kernels.cu must print ALL OK.
MODES = [{'EMU_ORDER': order, 'EMU_CPASYNC': timing, 'EMU_POISON': '1'} for order in ORDERS for timing in ('wait', 'issue')]
MODES += [{'EMU_DEVICE': device} for device in ('sm_90', 'sm_100')]
MODES += [{'EMU_THREADS': '2'}, {'EMU_RACE': '1', 'EMU_POISON': '1'}, {'EMU_RACE': '2'}, {'EMU_COUNT': '1'}]

RACE = {'EMU_RACE': '1'}
PLAIN = {}


def race(kernel, kind):
    return rf'EMU RACE: kernel \S*{kernel}\S*: {kind}'


def error(kernel, text):
    return rf'EMU ERROR: kernel \S*{kernel}\S*: {text}'


# Bug, settings, the report that must be there, status that the program prints.
PLANTED = [
    ('missing_barrier', RACE, race('missing_barrier', 'read after unsynchronised write'), 'cudaSuccess'),
    ('write_after_read', RACE, race('write_after_read', 'write after unsynchronised read'), 'cudaSuccess'),
    ('weak_async_wait', RACE, race('weak_async_wait', 'read of bytes of a cp.async in flight'), 'cudaSuccess'),
    ('missing_async_barrier', RACE, race('missing_async_barrier', 'read '), 'cudaSuccess'),
    ('non_atomic_add', RACE, race('non_atomic_add', 'read after unsynchronised write'), 'cudaSuccess'),
    ('blocks_write_same', RACE, race('blocks_write_same', r'write after unsynchronised write \(different value\)'),
     'cudaSuccess'),
    ('shared_write_write', RACE, race('shared_write_write', r'write after unsynchronised write \(different value\)'),
     'cudaSuccess'),
    ('wrong_fragment_index', RACE, race('wrong_fragment_index', r'write after unsynchronised write \(different value\)'),
     'cudaSuccess'),
    ('missing_fence', RACE, race('missing_fence', 'read after unsynchronised write'), 'cudaSuccess'),
    ('uninitialised_shared_read', RACE,
     r'EMU UNINITIALISED: kernel \S*uninitialised_shared_read\S*: read of shared memory that no thread', 'cudaSuccess'),
    ('global_out_of_bounds', PLAIN, error('global_out_of_bounds', r'out of bounds: 4-byte access at byte 1024 of'),
     'cudaErrorIllegalAddress'),
    ('before_the_array', PLAIN, error('before_the_array', r'out of bounds: .* 4 bytes before cudaMalloc'),
     'cudaErrorIllegalAddress'),
    ('shared_out_of_bounds', PLAIN, error('shared_out_of_bounds', 'shared memory access out of bounds: 4 bytes at offset 256'),
     'cudaErrorIllegalAddress'),
    ('null_pointer', PLAIN, error('use_after_free', 'null-ish pointer'), 'cudaErrorIllegalAddress'),
    ('use_after_free', PLAIN, error('use_after_free', r'use after free: byte 0 of freed cudaMalloc'),
     'cudaErrorIllegalAddress'),
    ('misaligned_vector_load', PLAIN, error('misaligned_vector_load', 'misaligned address'), 'cudaErrorMisalignedAddress'),
    ('divergent_barrier', PLAIN, error('divergent_barrier', 'divergent barrier'), 'cudaErrorLaunchFailure'),
    ('half_warp_shuffle', PLAIN, error('half_warp_shuffle', 'thread exits while other lanes wait'), 'cudaErrorLaunchFailure'),
    ('missing_lane', PLAIN, error('missing_lane', 'lane is not in its own member mask'), 'cudaErrorLaunchFailure'),
    ('exited_lane', PLAIN, error('exited_lane', '(warp collective names a lane that has exited|thread exits while)'),
     'cudaErrorLaunchFailure'),
    ('mismatched_collectives', PLAIN, error('mismatched_collectives', 'mismatched warp collectives'),
     'cudaErrorLaunchFailure'),
    ('deadlock', PLAIN, error('deadlock', r'deadlock: thread 0 and 31 more wait at barrier .* thread 32 and 31 more wait at barrier'), 'cudaErrorLaunchFailure'),
    ('skipped_barrier', PLAIN, error('skipped_barrier', 'deadlock: .* wait at warp collective'), 'cudaErrorLaunchFailure'),
    ('failed_assert', PLAIN, error('failed_assert', 'assertion `.*` failed at '), 'cudaErrorAssert'),
    ('too_many_bytes', PLAIN, r'EMU ERROR: \S*too_many_bytes\S*: shared memory: 0 static \+ 65536 dynamic', 'cudaSuccess'),
    ('double_free', PLAIN, 'EMU ERROR: cudaFree: double free of cudaMalloc #', 'cudaSuccess'),
    ('copy_too_long', PLAIN, 'EMU ERROR: cudaMemcpy: out of bounds: 1028-byte access', 'cudaSuccess'),
    ('allocation_in_capture', PLAIN, 'EMU ERROR: cudaMalloc: not permitted while a stream captures',
     'cudaSuccess'),
    ('unmodelled_call', PLAIN, 'EMU ERROR: cudaGraphCreate: this call is not modelled', 'cudaSuccess'),
]

REPORT = re.compile(r'EMU (ERROR|FATAL|UNINITIALISED: kernel|RACE: kernel).*')
# Reports of device code name a source line (the program is built with -lineinfo); that of an inlined intrinsic lies in
# CUDA's headers.
LINE = re.compile(r'\.(cu|cuh|hpp):\d+')
WITHOUT_LINE = {'too_many_bytes', 'double_free', 'copy_too_long', 'allocation_in_capture', 'unmodelled_call'}


def run(libraries, command, settings):
    env = {k: v for k, v in os.environ.items() if not k.startswith('EMU_') or k in ('EMU_CACHE', 'EMU_JOBS', 'EMU_CXX')}
    env.update(settings, LD_LIBRARY_PATH=libraries)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


def check_kernels(libraries, program):
    wrong = 0
    for mode in MODES:
        code, out, err = run(libraries, [program], {'EMU_PREBUILD': 'all', **mode})
        reports = REPORT.search(err)
        good = code == 0 and 'ALL OK' in out and not reports
        wrong += not good
        print('ok ' if good else 'BAD', 'kernels', mode)
        if not good:
            print(out, err)
    return wrong


def check_bug(libraries, program, bug, settings, report, status):
    """Problems found, as a list of texts."""
    problems = []
    settings = {'EMU_PREBUILD': 'all', 'EMU_POISON': '1', **settings}
    _, out, err = run(libraries, [program, bug, 'bug'], settings)
    if not re.search(report, err):
        problems.append(f'not found: expected {report}, got {err or "no report"}')
    if f'{bug}: {status}' not in out:
        problems.append(f'expected status {status}, got {out}')
    if bug not in WITHOUT_LINE and not LINE.search(err):
        problems.append(f'report without source line: {err}')
    code, out, err = run(libraries, [program, bug, 'right'], {**settings, **RACE})
    if code != 0 or REPORT.search(err) or f'{bug}: cudaSuccess' not in out:
        problems.append(f'repaired twin is reported: {out}{err}')
    return problems


def main():
    libraries, kernels, planted = sys.argv[1:4]
    wanted = sys.argv[4] if len(sys.argv) > 4 else ''
    wrong = 0 if wanted else check_kernels(libraries, kernels)
    for bug, settings, report, status in PLANTED:
        if wanted and wanted not in bug:
            continue
        problems = check_bug(libraries, planted, bug, settings, report, status)
        wrong += bool(problems)
        print('BAD' if problems else 'ok ', 'planted', bug, *problems)
    print('SOME BAD' if wrong else 'ALL OK')
    return wrong != 0


sys.exit(main())
