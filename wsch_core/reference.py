"""Weights under the names of the authors' checkpoints -> our network."""

from __future__ import annotations

from torch import Tensor

from .model import WSCH

_ATTENTION = {
    "linear_q.weight": "query.weight",
    "linear_k.weight": "key.weight",
    "linear_v.weight": "value.weight",
    "linear_output.weight": "output.weight",
    "linear_output.bias": "output.bias",
}
NAMES = {
    "En.Norm.weight": "encoder.frame_norm.weight",
    "En.Norm.bias": "encoder.frame_norm.bias",
    "En.in_proj.weight": "encoder.input_projection.weight",
    "En.Norm1.weight": "encoder.mixer_norm.weight",
    "En.expand_proj.weight": "encoder.expansion.weight",
    "En.conv.weight": "encoder.convolution.weight",
    "En.ssm.x_proj.weight": "encoder.mixer.projection.weight",
    "En.ssm.dt_bias": "encoder.mixer.step_bias",
    "En.ssm.A_log": "encoder.mixer.log_decay_rate",
    "En.ssm.D": "encoder.mixer.skip",
    "En.out_proj.weight": "encoder.contraction.weight",
    "En.out_proj.bias": "encoder.contraction.bias",
    "En.norm1.weight": "encoder.attention_norm.weight",
    "En.norm1.bias": "encoder.attention_norm.bias",
    "hash.linear.weight": "hash_layer.projection.weight",
    "hash.linear.bias": "hash_layer.projection.bias",
    "hash.ln.weight": "hash_layer.norm.weight",
    "hash.ln.bias": "hash_layer.norm.bias",
    "De.mask_token": "decoder.mask_token",
    "De.encoder_to_decoder.weight": "decoder.input_projection.weight",
    "De.norm.weight": "decoder.attention_norm.weight",
    "De.norm.bias": "decoder.attention_norm.bias",
    "De.out_proj.weight": "decoder.output_projection.weight",
    "De.out_proj.bias": "decoder.output_projection.bias",
    **{f"En.att1.{theirs}": f"encoder.attention.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"De.att.{theirs}": f"decoder.attention.{ours}" for theirs, ours in _ATTENTION.items()},
}
CENTERS = "cluster_centers"
STATE_SIZE = 64  # of every published checkpoint


def load_reference_weights(weights: dict[str, Tensor]) -> tuple[WSCH, Tensor | None]:
    """A network with the given weights, all sizes inferred from their shapes, and the cluster centres (K, b), if any.

    Raises ValueError naming the weights that are missing, unknown or of the wrong shape.
    """
    missing, unknown = NAMES.keys() - weights.keys(), weights.keys() - NAMES.keys() - {CENTERS}
    if missing or unknown:
        raise ValueError(
            f"the weights are not those of a WSCH checkpoint: missing {sorted(missing) or 'none'}, "
            f"unknown {sorted(unknown) or 'none'}."
        )
    width, feature_size = weights["En.in_proj.weight"].shape
    decoder_width, bits = weights["De.encoder_to_decoder.weight"].shape
    heads = weights["En.ssm.D"].shape[0]
    model = WSCH(feature_size, bits, width, decoder_width, ssd_head_width=2 * width // heads, state_size=STATE_SIZE)
    state = {ours: weights[theirs] for theirs, ours in NAMES.items()}
    state["decoder.mask_token"] = state["decoder.mask_token"].flatten()
    for name, parameter in model.state_dict().items():
        if state[name].shape != parameter.shape:
            raise ValueError(f"{name} has the shape {tuple(state[name].shape)}, expected {tuple(parameter.shape)}.")
    model.load_state_dict(state)
    return model, weights.get(CENTERS)
