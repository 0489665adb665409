# SPDX-License-Identifier: Apache-2.0
"""Tests of the translator: `python3 -m unittest discover -s translator_tests -t .` in the folder above."""
