# SPDX-License-Identifier: Apache-2.0
"""The main job on the emulated device and on the CPU: both continue one private run with the same weights, so the losses that
they print agree. On another device than the checkpoint's a run draws other records and other noise; so every record is in
every step, and there is next to no noise.

usage: check_train_gpt.py LIBRARIES train_gpt
"""
import os
import re
import subprocess
import sys
import tempfile

LINES = ["In the beginning was the word", "and the light shines", "there was a man", "all things were made", "he came"]
#: In f32 the devices differ by rounding, far below the printed digit. In bf16 the stored logits, of at most a few units, are
#: rounded to 2^-9 of their size on both: by one spacing of a bf16 number of the loss's size (2^-8) its mean does not move.
BOUNDS = {"f32": lambda loss: 0.0011, "bf16": lambda loss: loss * 2**-8}
STEPS = 3


def losses(text):
    return [float(x) for x in re.findall(r"^step .*?held-out loss ([\d.]+)", text, re.M)]


def main(libraries, program):
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "EMU_POISON": "1", "EMU_THREADS": "0"}
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        data = os.path.join(folder, "text")
        with open(data, "w", encoding="ascii") as file:
            file.write("".join(f"{line} {n}\n" for n in range(5) for line in LINES))

        def run(dtype, name, *options):
            command = [program, f"--data={data}", f"--output={folder}/{name}", f"--dtype={dtype}", f"--steps={STEPS}"]
            command += "--batch=24 --physical-batch=4 --width=32 --layers=1 --heads=2 --context=16 --evaluate-every=1".split()
            command += "--evaluate-records=4 --threads=1 --lines=0 --learning-rate=0.01 --warm-up=1".split()
            command += ["--noise-multiplier=1e-6"]
            done = subprocess.run(command + list(options), env=environment, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} in {dtype}: status {done.returncode}\n{done.stdout}{done.stderr}")
            return done.stdout

        for dtype, bound in BOUNDS.items():
            run(dtype, "start", "--stop-after=0")
            resume = f"--resume={folder}/start/checkpoint.safetensors"
            here = losses(run(dtype, "cpu", resume, "--device=cpu"))
            there = losses(run(dtype, "cuda", resume, "--device=cuda"))
            good = len(here) == len(there) == STEPS and all(abs(a - b) <= bound(a) for a, b in zip(here, there))
            good = good and max(here) - min(here) > bound(here[0])  # where nothing moves, all agree
            print(f"{dtype}: losses {here} on the CPU, {there} on the GPU: {'agree' if good else 'WRONG'}")
            failed = failed or not good
    return failed


sys.exit(main(*sys.argv[1:]))
