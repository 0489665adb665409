#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ids of the package `tokenizers`, the oracle of dpmp's own.

    python3 -m venv env && env/bin/pip install tokenizers
    env/bin/python tests/interop/record_tokenizers.py record
    env/bin/python tests/interop/record_tokenizers.py compare build/host-release/tests/tokenizer_ids 100000 SEED FILE...
    env/bin/python tests/interop/record_tokenizers.py time build/host-release/bench/bench_tokenizer TEXT FILE...

`record` trains two small vocabularies on this repository's own prose and writes them, with texts and what the package makes
of them, to tests/interop/data/tokenizers, which test_tokenizer_recorded.cpp reads. `compare` draws fresh texts and compares
every id and every decoded text: FILE is a tokenizer.json, or files of the older kinds joined by a comma (vocab.json,merges.txt)
or alone (vocab.txt). It ends with 1 where anything differs. `time` prints MB/s of both on one thread, in turns.
"""
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(__file__).resolve().parent / "data" / "tokenizers"

BLOCKS = [(0x0, 0x80), (0x0, 0x80), (0x80, 0x250), (0x250, 0x370), (0x300, 0x370), (0x370, 0x600), (0x600, 0x900),
          (0x900, 0xE00), (0xE00, 0x1100), (0x1100, 0x1200), (0x1200, 0x1E00), (0x1AB0, 0x1B00), (0x1E00, 0x2000),
          (0x2000, 0x2070), (0x2070, 0x2C00), (0x2C00, 0x3000), (0x3000, 0x3100), (0x3100, 0x3400), (0x3400, 0xA000),
          (0xA000, 0xAC00), (0xAC00, 0xD7B0), (0xE000, 0xF900), (0xF900, 0xFB00), (0xFB00, 0x10000), (0x10000, 0x11000),
          (0x11000, 0x12000), (0x16800, 0x17000), (0x1D000, 0x1D800), (0x1E000, 0x1F000), (0x1F000, 0x1FB00),
          (0x20000, 0x2A6E0), (0x2F800, 0x2FA20), (0xE0000, 0xE0200)]
WHITE = " \t\n\r\v\f\x85\xa0\u1680\u2003\u2028\u202f\u3000  \n\n"
WORDS = ("the of and to Hello World world wor x don't I'll we've they're O'Neil 's 'S ' '' can't 2024 3.14 1e-5 "
         "http://a.b/c?d=e <x> <X> <|endoftext|> <|endof [CLS] [SEP] [MASK] [UNK] [PAD] \u00e9 \u00c9 na\u00efve Stra\u00dfe "
         "\u0130stanbul \u4f60\u597d \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0939\u093f\u0928\u094d\u0926\u0940 "
         "\u0e44\u0e17\u0e22 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea "
         "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \u2764\ufe0f e\u0301 \u0301 \ufffd "
         "\ufeff \u200b \u200d \xad a\u0302\u0323 \u302e\u0325 \u039f\u0394\u039f\u03a3 \u0416\u0443\u043a "
         "\u10d0\u10d1 \u1f88 \ufb01 \u212b \u1e9b\u0323").split(" ")
# Marks of many classes, with what they combine with.
MARKS = "ae\u0300\u0301\u0323\u0345\u302e\u302f\u1e13\u0f71\u0f72\U0001d165\u0327\u0338\u05b0\u064b\u0f73\u1e69 "
FIXED = ["", " ", "a", "\n", "\r\n", "Hello, world!", "  two  spaces ", "a\r\nb\r\n\r\nc", "tab\tand\x0b\x0c", "x" * 200,
         " " * 50 + "a", "=" * 97, "I'm you're he's we'll they've I'd 'tis ''s 's", "can't CAN'T", "3.14159 and 1,000,000",
         "e\u0301\u0323 vs \u1ec7", "\u4f60\u597d\u4e16\u754c, \u8c48\u66f4", "\u00a0\u2003\u3000", "\ufeffmark",
         "\ud55c\uad6d\uc5b4", "a\u200db\u00adc", "null\0byte", "\ue000\U000f0000 private", "\ufffe\uffff\U0001ffff",
         "The private training of a model, step by step.", "unbelievably untokenizable words", "[CLS] not [SEP] a [MASK]",
         "<|endoftext|>two<|endoftext|> texts", "\u0130\u0131I\u0069", "\u1f48\u0394\u03a5\u03a3\u03a3\u0395\u038e\u03a3",
         "1\u00bd\u2167\u0665\U0001d7d8", "\u0301\u0301\u0301a", "$5 + 3 = 8 < 9 ^ 2 ` | ~", "\u2018quoted\u2019 \u2014 dash"]

# Around added tokens.
ADDED = ["a <x>  b", "<x><x> \n<x>\u3000c", "  <x>", "<x>  ", "wor world wor-wor worx\u0301 wor wor_ 1wor \u00e9wor",
         "\u00e9 e \u00e9\u00e9 \u00e9\u0301 x\u00c9", "Hello World hello world HELLO  WORLD", " <X> x<x>\t<X>\r\n", "world x world  x",
         "<|endof<|endoftext|>text|>", "\u2764 \u2764\ufe0f\u2764", "\u0416 x\u0416x", "wor<x> wor <x>wor"]


def texts(count, seed, keep):
    """Texts over all of Unicode, of every script, of white space, marks, runs, and of the words above. Of a character for
    which keep() is false another one is drawn."""
    rng = random.Random(seed)

    def char(low, high):
        while True:
            c = rng.randrange(low, high)
            if not 0xD800 <= c < 0xE000 and keep(chr(c)):
                return chr(c)

    for number in range(count):
        if number < len(FIXED):
            yield FIXED[number]
            continue
        kind, length, text = rng.random(), min(int(rng.expovariate(1 / 20)) + 1, 300), ""
        block = rng.choice([b for b in BLOCKS if any(keep(chr(c)) for c in range(*b) if not 0xD800 <= c < 0xE000)])
        if kind < .15:
            text = "".join(char(0, 0x110000) for _ in range(length))
        elif kind < .35:
            while len(text) < length:
                piece = rng.choice(BLOCKS)
                if piece[0] < 0xE0000:
                    text += "".join(char(*piece) for _ in range(rng.randrange(1, 6)))
        elif kind < .5:
            text = "".join(char(*block) if rng.random() < .85 else rng.choice(WHITE) for _ in range(length))
        elif kind < .6:
            text = "".join(chr(rng.randrange(128)) for _ in range(length))
        elif kind < .65:
            text = "".join(rng.choice(WHITE + "a1!'") for _ in range(length))
        elif kind < .7:
            text = char(*block) * (length * rng.choice([1, 1, 10]))
        elif kind < .75:
            text = "".join(rng.choice(MARKS) for _ in range(length))
        else:
            while len(text) < 2 * length:
                text += rng.choice(WORDS) + rng.choice(["", " ", " ", "  ", rng.choice(WHITE), char(*rng.choice(BLOCKS[:-1]))])
        yield text


def assigned(c):
    """Assigned by Unicode 14, or never to be: what every library that dpmp is built with agrees about."""
    return unicodedata.category(c) != "Cn" or ord(c) & 0xFFFE == 0xFFFE


def patched(value, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    value = dict(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            value.pop(key, None)
        else:
            value[key] = patched(value.get(key), change)
    return value


def train():
    prose = [p.read_text() for p in sorted(ROOT.glob("docs/*.md")) if p.name not in ("quick_reference.md",)]
    prose = [line for text in prose for line in text.splitlines() if not line.startswith("|")] + WORDS
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    pairs.post_processor = processors.ByteLevel(trim_offsets=False)
    pairs.train_from_iterator(prose, trainers.BpeTrainer(
        vocab_size=900, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces.train_from_iterator(prose, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False))
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return {"bpe.json": pairs, "wordpiece.json": pieces}


def added(tokenizer, *tokens):
    """tokens: (content, flags that are on). What the vocabulary has keeps its id; the others get the next ones."""
    flags, vocabulary = ("single_word", "lstrip", "rstrip", "normalized", "special"), tokenizer.get_vocab()
    made = json.loads(tokenizer.to_str())["added_tokens"]
    for content, on in tokens:
        number = vocabulary.setdefault(content, len(vocabulary))
        made.append({"id": number, "content": content, **{f: f in on for f in flags}})
    return made


def variants(pairs, pieces):
    """(file, what is changed in it, how many texts)."""
    cut = {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0}
    end = [["</s>", 901], ["<s>", 900]]
    some = added(pairs, ("<x>", {"lstrip", "rstrip"}), ("wor", {"single_word"}), ("world x", {"normalized"}),
                       ("\u0416", set()), ("\u00e9", set()), ("<|endof", {"special"}), ("\u2764", {"rstrip", "normalized"}))
    roberta = {"post_processor": {"type": "RobertaProcessing", "sep": end[0], "cls": end[1], "trim_offsets": True,
                                  "add_prefix_space": True, "use_regex": None},
               "added_tokens": added(pairs, ("<s>", {"special"}), ("</s>", {"special"}))}
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "E", "type_id": 3}},
                                                         {"Sequence": {"id": "A", "type_id": 2}}],
                "pair": [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "E", "type_id": 3}},
                         {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"E": {"id": "E", "ids": [0, 5], "tokens": ["<|endoftext|>", "x"]}}}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    yield "bpe.json", {}, 110
    yield "bpe.json", {"pre_tokenizer": {"add_prefix_space": True}}, 20
    yield "bpe.json", {"pre_tokenizer": {"use_regex": False}, "decoder": None}, 18
    yield "bpe.json", {"added_tokens": some}, 40
    yield "bpe.json", {"model": {"ignore_merges": True}}, 15
    yield "bpe.json", {"truncation": cut}, 18
    yield "bpe.json", {**roberta, "truncation": {**cut, "direction": "Left"}}, 18
    yield "bpe.json", {"post_processor": {"type": "Sequence", "processors": [byte_level, template], "add_prefix_space": None,
                                       "trim_offsets": None, "use_regex": None}}, 15
    yield "wordpiece.json", {}, 110
    yield "wordpiece.json", {"normalizer": {"lowercase": False}}, 20
    yield "wordpiece.json", {"normalizer": {"strip_accents": False}}, 25
    yield "wordpiece.json", {"normalizer": {"clean_text": False, "handle_chinese_chars": False}}, 25
    yield "wordpiece.json", {"normalizer": {"lowercase": False, "strip_accents": True}, "decoder":
                             {"cleanup": False}}, 18
    yield "wordpiece.json", {"normalizer": None, "decoder": None, "model": {"max_input_chars_per_word": 5}}, 18
    yield "wordpiece.json", {"added_tokens": added(
        pieces, ("Hello World", {"normalized"}), ("<X>", {"lstrip", "rstrip", "normalized"}), ("\u00e9", {"single_word",
        "normalized"}), ("wor", {"single_word"}))}, 40
    yield "wordpiece.json", {"truncation": cut}, 20
    yield "wordpiece.json", {"truncation": {**cut, "max_length": 9, "direction": "Left"}, "post_processor":
                             {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "single": None, "pair": None,
                              "special_tokens": None}}, 18


def result(tokenizer, text, pair=None):
    made = tokenizer.encode(text) if pair is None else tokenizer.encode(text, pair)
    case = {"text": text, "ids": made.ids}
    if pair is not None:
        case.update(pair=pair, types=made.type_ids)
    else:
        decoded = tokenizer.decode(made.ids, skip_special_tokens=True)
        if decoded != text:
            case["decoded"] = decoded
    return case


def record():
    DATA.mkdir(parents=True, exist_ok=True)
    made = train()
    for name, tokenizer in made.items():
        value = json.loads(tokenizer.to_str())
        (DATA / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    groups = []
    for seed, (name, changes, count) in enumerate(variants(*made.values())):
        value = patched(json.loads((DATA / name).read_text()), changes)
        tokenizer = Tokenizer.from_str(json.dumps(value))
        drawn = list(texts(count, 1000 + seed, assigned)) if count > 100 else list(
            texts(count + len(FIXED), 1000 + seed, assigned))[len(FIXED):]
        if "added_tokens" in changes:
            drawn = ADDED + drawn
        cases = [result(tokenizer, text[:60]) for text in drawn]
        cases += [result(tokenizer, a[:24], b[:24]) for a, b in zip(drawn[::5], drawn[1::5])]
        if "truncation" in changes:  # of the same length
            cases += [result(tokenizer, text[:24], text[:24]) for text in drawn[::3]]
        groups.append({"file": name, "changes": changes, "cases": cases})
    with open(DATA / "recorded.json", "w") as out:
        out.write('{"tokenizers": "%s", "groups": [\n' % tokenizers.__version__)
        for k, group in enumerate(groups):
            out.write(json.dumps({"file": group["file"], "changes": group["changes"]})[:-1] + ', "cases": [\n')
            out.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in group["cases"]))
            out.write("\n]}" + ("," if k + 1 < len(groups) else "") + "\n")
        out.write("]}\n")
    print(sum(len(g["cases"]) for g in groups), "cases of", len(groups), "tokenizers")


def oracle_of(files):
    if len(files) == 2:
        vocabulary = json.loads(pathlib.Path(files[0]).read_text())
        lines = pathlib.Path(files[1]).read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
        return made
    if not files[0].endswith(".json"):
        made = Tokenizer(models.WordPiece.from_file(files[0], unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        made.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
        made.post_processor = processors.BertProcessing(*((t, made.token_to_id(t)) for t in ("[SEP]", "[CLS]")))
        return made
    made = Tokenizer.from_file(files[0])
    made.no_padding()
    return made


def compare(program, count, seed, files):
    """How many texts differ, in ids or decoded again."""
    oracle, drawn = oracle_of(files), list(texts(count, seed, assigned))
    with tempfile.TemporaryDirectory() as folder:
        source, target = folder + "/texts", folder + "/ids"
        with open(source, "wb") as out:
            out.write(struct.pack("<I", len(drawn)))
            for text in drawn:
                out.write(struct.pack("<I", len(text.encode())) + text.encode())
        subprocess.run([program, source, target, *files], check=True)
        results, at, different = pathlib.Path(target).read_bytes(), 0, 0
    for text in drawn:
        number, = struct.unpack_from("<I", results, at)
        ids = list(struct.unpack_from(f"<{number}i", results, at + 4))
        at += 4 + 4 * number
        length, = struct.unpack_from("<I", results, at)
        again = results[at + 4:at + 4 + length].decode()
        at += 4 + length
        expected = oracle.encode(text).ids
        if ids != expected or again != oracle.decode(expected, skip_special_tokens=False):
            different += 1
            if different <= 5:
                print(f"{ascii(text)}\n  expected {expected}\n  got      {ids}")
    print(f"{' '.join(files)}: {count} texts of seed {seed}, {different} different")
    return different


def speed(program, text, files):
    """Medians of three rounds in turns."""
    lines = [line for line in pathlib.Path(text).read_text(encoding="utf-8").split("\n") if line]
    size = sum(len(line.encode()) for line in lines) / 1e6
    for name in files:
        ours, package = [], []
        for _ in range(3):
            printed = subprocess.run([program, name, text], check=True, capture_output=True, text=True).stdout
            ours.append(float(printed.split("rounds: ")[1].split()[0]))
            oracle = oracle_of([name])
            start = time.perf_counter()
            for line in lines:
                oracle.encode(line)
            package.append(size / (time.perf_counter() - start))
        print(f"{name}: dpmp {sorted(ours)[1]:.1f} MB/s, tokenizers {tokenizers.__version__} {sorted(package)[1]:.1f} MB/s")


if __name__ == "__main__":
    if sys.argv[1:] == ["record"]:
        record()
    elif len(sys.argv) > 5 and sys.argv[1] == "compare":
        sys.exit(any([compare(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), f.split(",")) for f in sys.argv[5:]]))
    elif len(sys.argv) > 4 and sys.argv[1] == "time":
        speed(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        sys.exit(__doc__)
