"""The method, slowly and obviously: one text at a time, left padding, the whole string, every block, no cache.

It shares no code with the package. `read` returns what a view reads.
"""

import torch


def clean(text):
    if len(text) > 0 and text[-1] not in ".?\"'":
        text += "."
    text = text.replace('"', "'")
    if len(text) > 0 and text[-1] == "?":
        text = text[:-1] + "."
    return text


def hidden_states(model, tokenizer, template, text, *, start=None, stop=None, kind="tp", padding=3):
    """Return ([state after i blocks for i in 0..L], final norm's output), each (T, H), and the text's token range."""
    text = clean(text)
    first = tokenizer("a").input_ids[0]
    bos = [first] if first == tokenizer.bos_token_id else []
    front, after = template.split("{text}")
    if "<PST>" in front:
        head, before = front.split("<PST>")
        ids = bos + tokenizer(head, add_special_tokens=False).input_ids
        slot = len(ids)
        ids = [*ids, 0]
    else:
        before, ids, slot = front, bos, None
    tail = tokenizer(before + text + after, add_special_tokens=False, return_offsets_mapping=True)
    inside = [
        len(ids) + i
        for i, (a, b) in enumerate(tail.offset_mapping)
        if (a >= len(before) or not before[a:].strip()) and len(before) < b <= len(before) + len(text) and b > a
    ]
    ids = ids + tail.input_ids

    embeds = model.get_input_embeddings()(torch.tensor([[0] * padding + ids])).detach().clone()
    if slot is not None:
        embeds[0, padding + slot] = 0
    mask = torch.tensor([[0] * padding + [1] * len(ids)])
    positions = torch.tensor([[0] * padding + list(range(len(ids)))])
    blocks = model.h if hasattr(model, "h") else model.layers
    states = []

    def before_block(i):
        def hook(module, args):
            hidden = args[0]
            states.append(hidden[0, padding:].clone())
            if slot is not None and start <= i < stop:
                hidden = hidden.clone()
                real = torch.ones(len(ids), dtype=torch.bool)
                real[slot] = False
                new = hidden[0, -1] if kind == "tp" else hidden[0, padding:][real].mean(dim=0)
                hidden[0, padding + slot] = new
                return (hidden, *args[1:])
            return None

        return hook

    def after_last(module, args, output):
        states.append((output[0] if isinstance(output, tuple) else output)[0, padding:].clone())

    handles = [block.register_forward_pre_hook(before_block(i)) for i, block in enumerate(blocks)]
    handles.append(blocks[-1].register_forward_hook(after_last))
    try:
        with torch.no_grad():
            output = model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return states, output.last_hidden_state[0, padding:], inside


def read(states, normed, inside, exit, readout):
    hidden = normed if exit is None else states[exit]
    last = hidden[-1]
    mean = hidden[inside].mean(dim=0) if inside else last
    if readout == "last":
        return last
    if readout == "mean":
        return mean
    return (last / last.norm() + mean / mean.norm()) / 2


def next_logits(model, tokenizer, text):
    """Return the ids of a whole prompt, with BOS where the tokenizer adds one, and the logits after each, (T, V)."""
    ids = tokenizer(text).input_ids
    with torch.no_grad():
        return ids, model(torch.tensor([ids]), use_cache=False).logits[0].double()


def query_likelihood(model, tokenizer, before, query):
    """Return the mean log-probability of the query's tokens after the text before it."""
    start = len(tokenizer(before).input_ids)
    ids, logits = next_logits(model, tokenizer, before + query)
    told = [logits[at - 1].log_softmax(dim=0)[ids[at]] for at in range(start, len(ids))]
    return float(sum(told) / len(told))
