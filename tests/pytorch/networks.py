"""A run's generator and discriminator in transformers, by the shapes of its tensors; embeddings are shared."""

from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining


def networks(shapes, dropout):
    """(generator, discriminator, parameters of both, each once); `shapes` by the names of a checkpoint."""

    def config(prefix):
        inner, hidden = shapes[f"{prefix}.encoder.layer.0.intermediate.dense.weight"]
        layers = sum(name.startswith(f"{prefix}.encoder.layer.") and name.endswith("query.weight") for name in shapes)
        words, width = shapes["electra.embeddings.word_embeddings.weight"]
        positions, _ = shapes["electra.embeddings.position_embeddings.weight"]
        return ElectraConfig(
            vocab_size=words, embedding_size=width, hidden_size=hidden, intermediate_size=inner,
            num_hidden_layers=layers, num_attention_heads=max(hidden // 64, 1), max_position_embeddings=positions,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)

    generator = ElectraForMaskedLM(config("generator"))
    discriminator = ElectraForPreTraining(config("electra"))
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    # We let the padding token's embedding learn, as google-research/electra does.
    discriminator.electra.embeddings.word_embeddings.padding_idx = None
    parameters = {id(p): p for model in (generator, discriminator) for p in model.parameters()}
    return generator, discriminator, list(parameters.values())
