# SPDX-License-Identifier: Apache-2.0
"""Binary floating point in exact rational arithmetic: the oracle of the float tests.

Independent of the device headers on purpose: values are Fractions, one function rounds to any format in any mode.
"""
import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """IEEE binary format by its number of exponent and mantissa bits."""

    exponent_bits: int
    mantissa_bits: int

    @property
    def bits(self):
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self):
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def infinity(self):
        return ((1 << self.exponent_bits) - 1) << self.mantissa_bits

    @property
    def sign_bit(self):
        return 1 << (self.bits - 1)


FORMATS = {"f16": Format(5, 10), "bf16": Format(8, 7), "f32": Format(8, 23), "f64": Format(11, 52)}
NAN = "nan"


def is_nan(bits, form):
    return bits & ~form.sign_bit > form.infinity


def is_negative(bits, form):
    return bool(bits & form.sign_bit)


def is_subnormal(bits, form):
    magnitude = bits & ~form.sign_bit
    return 0 < magnitude < 1 << form.mantissa_bits


def flush(bits, form):
    """Subnormal -> zero of its sign."""
    return bits & form.sign_bit if is_subnormal(bits, form) else bits


def decode(bits, form):
    """Fraction, or math.inf, -math.inf, NAN. The sign of zero is lost: ask is_negative."""
    if is_nan(bits, form):
        return NAN
    sign = -1 if is_negative(bits, form) else 1
    magnitude = bits & ~form.sign_bit
    if magnitude == form.infinity:
        return sign * math.inf
    exponent, mantissa = magnitude >> form.mantissa_bits, magnitude & ((1 << form.mantissa_bits) - 1)
    if exponent:
        mantissa += 1 << form.mantissa_bits
    scale = max(exponent, 1) - form.bias - form.mantissa_bits
    return sign * mantissa * (Fraction(2) ** scale)


def encode(value, form, mode="rn", zero_negative=False):
    """Bits of a Fraction, infinity or NAN rounded in a mode: rn, rz, rm, rp."""
    if value is NAN:
        return form.infinity | 1 << (form.mantissa_bits - 1)
    if value in (math.inf, -math.inf):
        return form.infinity | (form.sign_bit if value < 0 else 0)
    if value == 0:
        return form.sign_bit if zero_negative else 0
    negative, size = value < 0, abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    exponent = max(exponent, 1 - form.bias)
    scaled = size / Fraction(2) ** (exponent - form.mantissa_bits)
    whole = scaled.numerator // scaled.denominator
    rest = scaled - whole
    outward = {"rz": False, "rm": negative, "rp": not negative}.get(mode)
    if mode == "rn":
        whole += rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole & 1)
    elif outward and rest:
        whole += 1
    # a mantissa that carried into the next binade has the right bits when added to the exponent field
    bits = whole + ((exponent + form.bias - 1) << form.mantissa_bits)
    if bits >= form.infinity:
        bits = form.infinity if mode == "rn" or outward else form.infinity - 1
    return bits | (form.sign_bit if negative else 0)


def _zero_sign(mode):
    return mode == "rm"  # exact cancellation gives +0, -0 only when rounding down


def add(a, b, form, mode="rn"):
    x, y = decode(a, form), decode(b, form)
    if x is NAN or y is NAN or (x in (math.inf, -math.inf) and y == -x):
        return encode(NAN, form)
    if x in (math.inf, -math.inf) or y in (math.inf, -math.inf):
        return encode(x if x in (math.inf, -math.inf) else y, form)
    if x == 0 and y == 0 and is_negative(a, form) == is_negative(b, form):
        return a
    return encode(x + y, form, mode, _zero_sign(mode))


def negate(a, form):
    return a ^ form.sign_bit


def _product(a, b, form):
    """(value, negative) of the exact product."""
    x, y = decode(a, form), decode(b, form)
    negative = is_negative(a, form) != is_negative(b, form)
    infinite = x in (math.inf, -math.inf) or y in (math.inf, -math.inf)
    if x is NAN or y is NAN or (infinite and (x == 0 or y == 0)):
        return NAN, False
    if infinite:
        return (-math.inf if negative else math.inf), negative
    return x * y, negative


def mul(a, b, form, mode="rn"):
    value, negative = _product(a, b, form)
    return encode(value, form, mode, negative)


def fma(a, b, c, form, mode="rn"):
    value, negative = _product(a, b, form)
    z = decode(c, form)
    infinities = [v for v in (value, z) if v in (math.inf, -math.inf)]
    if value is NAN or z is NAN or (len(infinities) == 2 and value != z):
        return encode(NAN, form)
    if infinities:
        return encode(infinities[0], form)
    if value == 0 and z == 0 and negative == is_negative(c, form):
        return encode(Fraction(0), form, mode, negative)
    return encode(value + z, form, mode, _zero_sign(mode))


def div(a, b, form, mode="rn"):
    x, y = decode(a, form), decode(b, form)
    negative = is_negative(a, form) != is_negative(b, form)
    infinite_x, infinite_y = x in (math.inf, -math.inf), y in (math.inf, -math.inf)
    if x is NAN or y is NAN or (infinite_x and infinite_y) or (x == 0 and y == 0):
        return encode(NAN, form)
    if infinite_x or y == 0:
        return encode(-math.inf if negative else math.inf, form)
    if infinite_y:
        return encode(Fraction(0), form, mode, negative)
    return encode(x / y, form, mode, negative)


def sqrt(a, form, mode="rn"):
    """Square root: the integer root with one sticky digit decides every rounding."""
    x = decode(a, form)
    if x is NAN or (x != 0 and is_negative(a, form)):
        return encode(NAN, form)
    if x == 0 or x == math.inf:
        return a
    shift = 4 * form.mantissa_bits + 2 * form.bias
    shift += shift & 1
    scaled = x * Fraction(2) ** shift
    assert scaled.denominator == 1
    root = math.isqrt(scaled.numerator)
    value = Fraction(2 * root + (root * root != scaled.numerator), 2) / Fraction(2) ** (shift // 2)
    return encode(value, form, mode)


def minimum(a, b, form, nan=False, largest=False):
    """min or max of the ISA: a number wins over NaN unless `nan`, -0 < +0. NaN results come back as the NAN pattern."""
    if is_nan(a, form) or is_nan(b, form):
        if nan or (is_nan(a, form) and is_nan(b, form)):
            return encode(NAN, form)
        return b if is_nan(a, form) else a

    def key(bits):
        return decode(bits, form), 0 if is_negative(bits, form) else 1

    return max(a, b, key=key) if largest else min(a, b, key=key)


def specials(form):
    """Zeros, subnormals, ends of the normal range, ones, infinities and NaNs, of both signs."""
    one = form.bias << form.mantissa_bits
    sizes = [0, 1, 2, (1 << form.mantissa_bits) - 1, 1 << form.mantissa_bits, (1 << form.mantissa_bits) + 1]
    sizes += [one - 1, one, one + 1, one + (1 << (form.mantissa_bits - 1)), one + (1 << form.mantissa_bits)]
    sizes += [form.infinity - 1, form.infinity, form.infinity | 1, form.infinity | 1 << (form.mantissa_bits - 1)]
    return [s | sign for s in sizes for sign in (0, form.sign_bit)]


def patterns(rng, form, count):
    """Random bit patterns: any, near one, small, and specials."""
    special = specials(form)
    values = []
    while len(values) < count:
        kind = rng.randrange(5)
        bits = rng.getrandbits(form.bits)
        if kind == 0:
            bits = rng.choice(special)
        elif kind == 1:  # near one, so that sums and products round
            exponent = form.bias + rng.randrange(-4, 5)
            bits = bits & ~form.infinity | exponent << form.mantissa_bits
        elif kind == 2:  # subnormal or barely normal
            bits = bits & ~form.infinity | rng.randrange(3) << form.mantissa_bits
        values.append(bits)
    return values


def pairs(rng, form, count):
    """Two columns: all pairs of specials and random ones."""
    special = specials(form)
    left = [a for a in special for _ in special] + patterns(rng, form, count)
    right = [b for _ in special for b in special] + patterns(rng, form, count)
    return left, right
