#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/interop/data/huggingface: tiny random models as transformers saves them, and what it computes with them.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors numpy
    venv/bin/python tests/interop/record_huggingface.py           # writes the folders anew
    venv/bin/python tests/interop/record_huggingface.py --check FOLDER EXPECTED

Each folder has config.json, the weights in one file or in shards, and expected.safetensors:
  ids, keep, types, labels   what goes in, I32
  f32.<output>               what the unchanged model computes in float32
  f64.<output>               the same in float64
  f64.norms                  each sample's gradient norm, by float64 batches of one; the loss is a sum over tokens
transformers casts to float32 inside of RMS norms and rotary angles, also in float64 models. For f64 these two are replaced
by what their papers say, in float64.

--check FOLDER EXPECTED loads a folder that dpmp wrote into transformers and compares its float64 logits with EXPECTED (a
safetensors file with ids and f64.logits).
"""
import argparse
import math
import pathlib
import shutil

import safetensors.torch
import torch
import transformers
from transformers.models.llama import modeling_llama

HERE = pathlib.Path(__file__).resolve().parent / "data" / "huggingface"


class ExactRotary(torch.nn.Module):
    """Angles in float64: Su et al. 2021, and the scaling of LLaMA 3.1's release."""

    def __init__(self, config):
        super().__init__()
        rope = getattr(config, "rope_parameters", None)
        if not rope:  # transformers 4
            rope = {"rope_theta": config.rope_theta, **(config.rope_scaling or {"rope_type": "default"})}
        width = config.hidden_size // config.num_attention_heads
        frequencies = []
        for k in range(width // 2):
            f = rope["rope_theta"] ** (-2 * k / width)
            if rope["rope_type"] == "linear":
                f /= rope["factor"]
            if rope["rope_type"] == "llama3":
                wavelength, original = 2 * math.pi / f, rope["original_max_position_embeddings"]
                low, high = rope["low_freq_factor"], rope["high_freq_factor"]
                if wavelength > original / low:
                    f /= rope["factor"]
                elif wavelength >= original / high:
                    smooth = (original / wavelength - low) / (high - low)
                    f = (1 - smooth) * f / rope["factor"] + smooth * f
            frequencies.append(f)
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)

    def forward(self, x, position_ids):
        angles = position_ids[:, :, None].double() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def exact_rms_norm(self, x):
    return self.weight * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def in_double(model):
    model = model.double()
    if isinstance(model, transformers.LlamaForCausalLM):
        modeling_llama.LlamaRMSNorm.forward = exact_rms_norm
        model.model.rotary_emb = ExactRotary(model.config)
    return model


def randomise(model, generator):
    """Values that matter everywhere: with fresh weights a bias that is lost, or a norm's gain, would change nothing."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            scale = 0.35 if p.dim() == 1 else 1.2 / math.sqrt(p.shape[-1])
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
            if "norm" in name.lower() or "ln_" in name:
                if name.endswith("weight"):
                    p.add_(1)


def outputs_of(model, inputs):
    keys = {"ids": "input_ids", "keep": "attention_mask", "types": "token_type_ids"}
    got = model(**{keys[k]: v.long() for k, v in inputs.items() if k in keys})
    named = {"logits": got.get("logits"), "hidden": got.get("last_hidden_state"), "pooled": got.get("pooler_output")}
    return {k: v for k, v in named.items() if v is not None}


def loss_of(model, inputs):
    """Of one sample: token t's logits against label t (or the class), added up; -1 counts nothing."""
    logits = outputs_of(model, inputs)["logits"]
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), inputs["labels"].reshape(-1).long(), reduction="sum", ignore_index=-1
    )


def record(name, model, inputs, shard="5GB", dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    randomise(model, generator)
    model.eval().to(dtype)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=shard, safe_serialization=True)
    for extra in folder.glob("generation_config.json"):
        extra.unlink()
    # Loaded again: what .to(16 bits) did to buffers, as the frequencies of angles, is not in the file.
    model = type(model).from_pretrained(folder, dtype=torch.float32).eval()
    expected = dict(inputs)
    with torch.no_grad():
        for key, value in outputs_of(model, inputs).items():
            expected["f32." + key] = value
        kept = modeling_llama.LlamaRMSNorm.forward
        exact = in_double(model)
        for key, value in outputs_of(exact, inputs).items():
            expected["f64." + key] = value
    if "labels" in inputs:
        norms = []
        for k in range(len(inputs["ids"])):
            exact.zero_grad()
            loss_of(exact, {key: value[k : k + 1] for key, value in inputs.items()}).backward()
            norms.append(torch.sqrt(sum((p.grad**2).sum() for p in exact.parameters() if p.grad is not None)))
        expected["f64.norms"] = torch.stack(norms)
    modeling_llama.LlamaRMSNorm.forward = kept
    safetensors.torch.save_file({k: v.contiguous().clone() for k, v in expected.items()}, folder / "expected.safetensors")
    print(name, {k: tuple(v.shape) for k, v in expected.items()}, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


def tokens(seed, vocabulary, samples=3, length=11, **more):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda high, shape: torch.randint(0, high, shape, generator=generator, dtype=torch.int32)
    inputs = {"ids": draw(vocabulary, (samples, length))}
    if more.get("labels"):
        inputs["labels"] = draw(more["labels"], (samples,) if more.get("by_sample") else (samples, length))
    if more.get("types"):
        inputs["types"] = draw(more["types"], (samples, length))
    if more.get("padded"):
        lengths = torch.tensor([length - 4 * k for k in range(samples)])
        inputs["keep"] = (torch.arange(length)[None, :] < lengths[:, None]).int()
        # BERT's padding token is 0, whose row of the table PyTorch never gives a gradient, wherever it stands.
        inputs["ids"] = torch.where(inputs["keep"] == 1, inputs["ids"].clamp(min=1), 0)
        if not more.get("by_sample"):
            inputs["labels"] = torch.where(inputs["keep"] == 1, inputs["labels"], -1)
    return inputs


def write_all():
    t = transformers
    gpt2 = dict(vocab_size=37, n_positions=16, n_embd=24, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    record("gpt2_tied", t.GPT2LMHeadModel(t.GPT2Config(**gpt2)), tokens(1, 37, labels=37))
    record(
        "gpt2_sharded_bf16",
        t.GPT2LMHeadModel(
            t.GPT2Config(**gpt2, n_inner=40, tie_word_embeddings=False, activation_function="gelu", layer_norm_epsilon=1e-3)
        ),
        tokens(2, 37, labels=37),
        shard="12KB",
        dtype=torch.bfloat16,
    )
    llama = dict(vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=2, max_position_embeddings=32)
    llama |= dict(bos_token_id=0, eos_token_id=0)
    record(
        "llama_plain",
        t.LlamaForCausalLM(t.LlamaConfig(**llama, num_attention_heads=4, rms_norm_eps=1e-6)),
        tokens(3, 37, labels=37),
    )
    record(
        "llama_grouped_f16",
        t.LlamaForCausalLM(
            t.LlamaConfig(
                **llama,
                num_attention_heads=6,
                num_key_value_heads=2,
                attention_bias=True,
                mlp_bias=True,
                tie_word_embeddings=True,
                rms_norm_eps=1e-4,
                rope_parameters={
                    "rope_type": "llama3",
                    "rope_theta": 500000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 40.0,
                    "original_max_position_embeddings": 16,
                },
            )
        ),
        tokens(4, 37, length=30, labels=37),
        dtype=torch.float16,
    )
    bert = dict(vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3)
    bert |= dict(max_position_embeddings=16, type_vocab_size=2)
    record(
        "bert_masked_lm",
        t.BertForMaskedLM(t.BertConfig(**bert)),
        tokens(5, 37, labels=37, types=2, padded=True),
    )
    record(
        "bert_classifier",
        t.BertForSequenceClassification(t.BertConfig(**bert, num_labels=3)),
        tokens(6, 37, labels=3, by_sample=True, types=2, padded=True),
    )
    record("bert_model", t.BertModel(t.BertConfig(**bert)), tokens(7, 37, by_sample=True, types=2, padded=True))


def check(folder, expected):
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0])
    loaded, report = model.from_pretrained(folder, dtype=torch.float64, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"], report
    stored = safetensors.torch.load_file(expected)
    inputs = {k: v for k, v in stored.items() if "." not in k}
    with torch.no_grad():
        got = outputs_of(in_double(loaded.eval()), inputs)
    for key, value in got.items():
        want = stored["f64." + key]
        keep = inputs.get("keep")
        if keep is not None and value.dim() == 3:
            value, want = value[keep == 1], want[keep == 1]
        print(folder, key, "largest difference", float((value - want).abs().max()), "of", float(want.abs().max()))
        assert float((value - want).abs().max()) < 1e-11 * float(want.abs().max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", nargs=2, metavar=("FOLDER", "EXPECTED"))
    given = parser.parse_args()
    check(*given.check) if given.check else write_all()
