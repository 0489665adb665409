#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares PldAccountant with dp_accounting's and prv_accountant's on random settings and prints the table of
docs/accounting.md. Every fourth setting is truncated Poisson sampling, whose batch size is between the one that a plan
chooses and a smaller one that it may refuse; the libraries have no balls in bins. Not part of ctest. From the root of the
repository:

  pip install dp-accounting prv-accountant
  g++ -std=gnu++20 -O2 -Iinclude tests/dp/accountant_table.cpp -o accountant_table -lcrypto
  tests/dp/compare_accountants.py ./accountant_table 240 7
"""
import math
import random
import subprocess
import sys
import time

from dp_accounting import NeighboringRelation
from dp_accounting.pld import privacy_loss_distribution as pld_library


def settings(count, seed):
    rng = random.Random(seed)
    for k in range(count):
        relation = ("add_or_remove_one", "add_or_remove_one", "replace_one", "truncated_poisson")[k % 4]
        q = min(1.0, math.exp(rng.uniform(-8, 0.2)))
        sigma = math.exp(rng.uniform(-0.7, 1.6))
        # As many steps as a run of a sensible epsilon has, or fewer.
        most = max(2.0, min(50000.0, 30 / (q * q * math.expm1(min(1 / sigma**2, 20)))))
        steps = max(1, int(math.exp(rng.uniform(0, math.log(most)))))
        delta = 10 ** rng.uniform(-10, -4)
        # Truncated: the data set, and by how much of its distance from the mean the chosen batch size is lowered.
        if relation == "truncated_poisson":
            q = min(q, 0.5)
            yield relation, q, sigma, steps, delta, int(200 / q), rng.choice((0.0, rng.uniform(0, 0.15)))
        else:
            yield relation, q, sigma, steps, delta


def by_dp_accounting(relation, q, sigma, steps, delta, pessimistic):
    replaced = relation == "replace_one"
    # Their noise is over the norm of one contribution, ours over the sensitivity, which is two of them.
    one = pld_library.from_gaussian_mechanism(
        2 * sigma if replaced else sigma, sampling_prob=q, pessimistic_estimate=pessimistic,
        value_discretization_interval=1e-4, use_connect_dots=True,
        neighboring_relation=
        NeighboringRelation.REPLACE_ONE if replaced else NeighboringRelation.ADD_OR_REMOVE_ONE)
    return one.self_compose(steps).get_epsilon_for_delta(delta)


def by_dp_accounting_truncated(q, sigma, steps, delta, units, batch):
    one = pld_library.from_truncated_subsampled_gaussian_mechanism(
        dataset_size=units, sampling_probability=q, truncated_batch_size=batch, noise_multiplier=sigma,
        value_discretization_interval=1e-4)
    return one.self_compose(steps).get_epsilon_for_delta(delta)


def by_prv(q, sigma, steps, delta):
    from prv_accountant import PRVAccountant
    from prv_accountant.privacy_random_variables import PoissonSubsampledGaussianMechanism
    accountant = PRVAccountant(
        prvs=PoissonSubsampledGaussianMechanism(noise_multiplier=sigma, sampling_probability=q),
        max_self_compositions=steps, eps_error=0.01, delta_error=delta / 1000)
    return accountant.compute_epsilon(delta=delta, num_self_compositions=steps)


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def main():
    program, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    cases = list(settings(count, seed))
    lines = "".join(" ".join(map(str, case)) + "\n" for case in cases)
    rows = subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    groups = {}
    bad = 0
    refused = 0
    for (relation, q, sigma, steps, delta, *more), row in zip(cases, rows, strict=True):
        least, most, rdp, milliseconds, batch = map(float, row.split())
        truncated = relation == "truncated_poisson"
        if truncated and batch == 0:
            refused += 1
            continue
        theirs, begin = math.inf, time.process_time()
        try:
            if truncated:
                theirs = by_dp_accounting_truncated(q, sigma, steps, delta, more[0], int(batch))
            else:
                theirs = by_dp_accounting(relation, q, sigma, steps, delta, True)
        except Exception as error:  # a grid that is too large for the library
            print("dp_accounting:", error, file=sys.stderr)
        their_milliseconds = 1e3 * (time.process_time() - begin)
        lower = upper = None
        if relation == "add_or_remove_one" and q < 1:
            try:
                lower, _, upper = by_prv(q, sigma, steps, delta)
            except Exception as error:  # so for its bounds, or a discretisation it cannot choose
                print("prv_accountant:", error, file=sys.stderr)
        where = f"{relation} q {q:.4g} sigma {sigma:.4g} steps {steps} delta {delta:.3g}" + (
            f" units {more[0]} batch {int(batch)}" if truncated else "")
        if least > theirs + 1e-9 + 1e-9 * theirs:
            bad += 1
            print("lower bound above dp_accounting:", where, least, theirs)
        if lower is not None and most < lower - 1e-4:
            bad += 1
            print("upper bound below prv_accountant's lower one:", where, most, lower)
        if upper is not None and least > upper + 1e-4:
            bad += 1
            print("lower bound above prv_accountant's upper one:", where, least, upper)
        g = groups.setdefault(relation, {"ours": [], "gap": [], "rdp": [], "ms": [], "their ms": [], "prv": 0})
        if math.isfinite(theirs) and theirs > 1e-3:
            g["ours"].append(most / theirs)
            if most / theirs > 1.001:
                print("above 1.001 of dp_accounting:", where, most, theirs, file=sys.stderr)
        if most > 1e-3 and not truncated:
            g["gap"].append(most / max(least, 1e-9) - 1)
            if rdp > 0:
                g["rdp"].append(rdp / most)
        g["ms"].append(milliseconds)
        g["their ms"].append(their_milliseconds)
        g["prv"] += lower is not None
    print(f"{count} settings, seed {seed}: {bad} contradictions; {refused} refused for their batch size")
    print("| relation | settings | with PRV bounds | ours / dp_accounting: least, median, largest | upper / lower - 1: median, 90 % "
          "| rdp / ours: median, largest | ms: median, largest | dp_accounting ms: median, largest |")
    print("|---|---|---|---|---|---|---|---|")
    for relation, g in groups.items():
        rdp = f"{quantile(g['rdp'], 0.5):.3f}, {max(g['rdp']):.2f}" if g["rdp"] else "-"
        gap = f"{quantile(g['gap'], 0.5):.1e}, {quantile(g['gap'], 0.9):.1e}" if g["gap"] else "-"
        print(f"| {relation} | {len(g['ms'])} | {g['prv']} | {min(g['ours']):.5f}, {quantile(g['ours'], 0.5):.5f}, "
              f"{max(g['ours']):.5f} | {gap} | {rdp} | "
              f"{quantile(g['ms'], 0.5):.0f}, {max(g['ms']):.0f} | {quantile(g['their ms'], 0.5):.0f}, "
              f"{max(g['their ms']):.0f} |")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
