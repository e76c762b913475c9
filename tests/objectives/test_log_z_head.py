"""The log-Z head: its bound, its start, its standardisation, and that it can learn."""

import pytest
import torch

from paced_rl.objectives.log_z_head import LogPartitionHead
from paced_rl.objectives.trajectory_balance import estimated_accuracy

REWARD_TEMPERATURE = 0.05


def _head(seed=0, initial_accuracy=0.5, embedding_size=6):
    return LogPartitionHead(
        embedding_size, 16, reward_temperature=REWARD_TEMPERATURE, initial_accuracy=initial_accuracy, seed=seed
    )


def _embeddings(num_prompts=40, embedding_size=6, seed=1):
    """Like hidden states: one dimension a thousand times larger than the rest, with a mean far from 0."""
    values = torch.randn(num_prompts, embedding_size, generator=torch.Generator().manual_seed(seed))
    return values * torch.tensor([1e3] + [1.0] * (embedding_size - 1)) + torch.tensor(
        [5e3] + [2.0] * (embedding_size - 1)
    )


def _train(head, embeddings, log_z, num_steps):
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    for _ in range(num_steps):
        optimiser.zero_grad()
        (head(embeddings) - log_z).square().mean().backward()
        optimiser.step()


@pytest.mark.parametrize("initial_accuracy", [0.05, 0.5, 0.9])
def test_every_estimate_starts_at_the_initial_accuracy(initial_accuracy):
    head, embeddings = _head(initial_accuracy=initial_accuracy), _embeddings()
    for _ in range(2):
        log_z = head(embeddings)
        assert log_z.shape == (40,)
        assert torch.equal(log_z, log_z[0].expand(40))
        assert estimated_accuracy(log_z, REWARD_TEMPERATURE)[0].item() == pytest.approx(initial_accuracy, abs=1e-6)
        head.fit_standardisation(embeddings)


def test_log_z_stays_within_its_bounds_whatever_the_embedding():
    head, embeddings = _head(), _embeddings()
    torch.nn.init.normal_(head.output_layer.weight, std=10, generator=torch.Generator().manual_seed(2))
    log_z = head(1e6 * (embeddings - embeddings.mean(0)))
    assert log_z.min() >= 0
    assert log_z.max() <= 1 / REWARD_TEMPERATURE
    assert log_z.max() - log_z.min() > 1


def test_an_unbounded_head_starts_at_zero_and_learns_what_no_accuracy_is():
    head = LogPartitionHead(
        6, 16, reward_temperature=REWARD_TEMPERATURE, initial_accuracy=0.9, seed=0, is_bounded=False
    )
    embeddings, target = _embeddings(num_prompts=8), torch.linspace(-30, 30, 8)
    head.fit_standardisation(embeddings)
    assert torch.equal(head(embeddings), torch.zeros(8))
    _train(head, embeddings, target, num_steps=2000)
    assert (head(embeddings) - target).abs().max() < 1


def test_a_bounded_head_is_the_sigmoid_of_the_unbounded_one():
    heads = [
        LogPartitionHead(6, 16, reward_temperature=0.25, initial_accuracy=0.5, seed=3, is_bounded=is_bounded)
        for is_bounded in (True, False)
    ]
    for head in heads:
        torch.nn.init.normal_(head.output_layer.weight, generator=torch.Generator().manual_seed(4))
    bounded, unbounded = (head(_embeddings()) for head in heads)
    assert torch.equal(bounded, torch.sigmoid(unbounded) / 0.25)


def test_forward_is_the_formula():
    head, embeddings = _head().double(), _embeddings().double()
    torch.nn.init.normal_(head.output_layer.weight, generator=torch.Generator().manual_seed(3))
    head.fit_standardisation(embeddings)
    weights = {name: value.detach() for name, value in head.named_parameters()}

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / 2**0.5))

    for row, result in zip(embeddings, head(embeddings), strict=True):
        x = (row - embeddings.mean(0)) / embeddings.std(0, correction=0)
        x = gelu(weights["input_layer.weight"] @ x + weights["input_layer.bias"])
        x = gelu(weights["hidden_layer.weight"] @ x + weights["hidden_layer.bias"])
        f = weights["output_layer.weight"] @ x + weights["output_layer.bias"]
        assert result.item() == pytest.approx(1 / (1 + torch.exp(-f).item()) / REWARD_TEMPERATURE, abs=1e-9)


def test_permutation_and_batch_split_change_nothing():
    head, embeddings = _head(), _embeddings()
    head.fit_standardisation(embeddings)
    _train(head, embeddings, torch.linspace(0, 20, 40), 20)
    whole = head(embeddings)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(head(embeddings[order]), whole[order])
    torch.testing.assert_close(torch.cat([head(embeddings[:7]), head(embeddings[7:])]), whole)


def test_construction_consumes_no_global_randomness_and_depends_on_the_seed_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = _head(seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = _head(seed=7), _head(seed=8)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.input_layer.weight, other.input_layer.weight)


def test_start_weights_have_the_usual_spread():
    """Uniform within ±1/√inputs."""
    head = LogPartitionHead(100, 64, reward_temperature=0.05, initial_accuracy=0.5, seed=2**62)
    assert 0.095 < head.input_layer.weight.abs().max().item() <= 0.1
    assert 0.120 < head.hidden_layer.weight.abs().max().item() <= 0.125
    assert head.input_layer.weight.mean().abs().item() < 0.005


def test_state_dict_round_trip_carries_weights_and_standardisation():
    head, embeddings = _head(), _embeddings()
    head.fit_standardisation(embeddings)
    _train(head, embeddings, torch.linspace(0, 20, 40), 5)
    restored = _head(seed=9, initial_accuracy=0.1)
    restored.load_state_dict(head.state_dict())
    assert torch.equal(restored(embeddings), head(embeddings))
    assert {"embedding_mean", "embedding_std"} <= head.state_dict().keys()


def test_standardisation_by_hand():
    head = _head(embedding_size=2)
    head.fit_standardisation(torch.tensor([[1000.0, 7.0], [3000.0, 7.0]]))
    assert head.embedding_mean.tolist() == [2000.0, 7.0]
    assert head.embedding_std.tolist() == [1000.0, 1.0]  # a constant dimension is centred, not scaled


def test_rounding_of_a_constant_dimension_is_not_scaled_up():
    head = _head(embedding_size=1)
    head.fit_standardisation(torch.tensor([[1e4], [1e4 + 0.001], [1e4]]))
    assert head.embedding_std.tolist() == [1.0]


def test_one_prompt_is_enough_to_fit():
    head = _head()
    head.fit_standardisation(_embeddings(num_prompts=1))
    assert head.embedding_std.tolist() == [1.0] * 6


def test_estimates_do_not_depend_on_the_units_of_the_embeddings():
    embeddings, target = _embeddings(), torch.linspace(0, 20, 40)
    results = []
    for scaled in (embeddings, embeddings * torch.tensor([1e-3, 1, 10, 100, 1, 1]) + 3):
        head = _head().double()
        head.fit_standardisation(scaled.double())
        _train(head, scaled.double(), target.double(), 20)
        results.append(head(scaled.double()))
    torch.testing.assert_close(results[0], results[1], atol=1e-2, rtol=0)


def test_head_learns_the_log_z_of_each_prompt():
    head, embeddings = _head(), _embeddings()
    head.fit_standardisation(embeddings)
    accuracy = torch.sigmoid(embeddings[:, 1] - 2 + (embeddings[:, 0] - 5e3) / 1e3)
    _train(head, embeddings, accuracy / REWARD_TEMPERATURE, 300)
    error = (estimated_accuracy(head(embeddings), REWARD_TEMPERATURE) - accuracy).abs()
    assert error.mean().item() < 0.02


def test_gradient():
    head = _head().double()
    torch.nn.init.normal_(head.output_layer.weight, generator=torch.Generator().manual_seed(10))
    embeddings = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
    names, values = zip(*head.named_parameters(), strict=True)

    def log_z(*weights):
        return torch.func.functional_call(head, dict(zip(names, weights, strict=True)), (embeddings,))

    assert torch.autograd.gradcheck(log_z, values)


def test_embeddings_of_another_type_are_taken_and_carry_no_gradient():
    head = _head()
    embeddings = _embeddings().to(torch.bfloat16).requires_grad_()
    log_z = head(embeddings)
    log_z.sum().backward()
    assert log_z.dtype == torch.float32
    assert embeddings.grad is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward_temperature": 0.0, "initial_accuracy": 0.5}, "reward_temperature = 0.0"),
        ({"reward_temperature": 0.05, "initial_accuracy": 0.0}, "initial_accuracy = 0.0"),
        ({"reward_temperature": 0.05, "initial_accuracy": 1.0}, "initial_accuracy = 1.0"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogPartitionHead(6, 16, seed=0, **arguments)


@pytest.mark.parametrize("shape", [(0, 6), (4, 5), (6,)])
def test_embeddings_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="must be \\[at least 1, 6\\]"):
        _head().fit_standardisation(torch.zeros(shape))


def test_embeddings_that_are_not_finite_are_refused_and_change_nothing():
    head, embeddings = _head(), _embeddings()
    embeddings[3, 2] = torch.inf
    embeddings[5, 0] = torch.nan
    with pytest.raises(ValueError, match="2 of 40 embeddings are not finite"):
        head.fit_standardisation(embeddings)
    assert head.embedding_mean.tolist() == [0.0] * 6
