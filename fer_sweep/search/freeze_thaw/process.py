"""The Gaussian process of freeze-thaw search: a metric over configuration and epoch (Swersky et al. 2014).

The covariance of trial i at epoch t and trial j at epoch u is

    scale * matern52(x_i, x_j) * (shared + (1 - shared) * ou(t, u)) + own * [i = j] * ou(t, u) + noise * [same point]

with ``ou(t, u) = exp(-|log t - log u| / memory)``, the Ornstein-Uhlenbeck covariance in the logarithm of the epoch:
what similar configurations have in common, at all epochs and by epoch, and what a trial's curve has for itself. Values
are standardized by the caller.

With trials of earlier sweeps, the first term is multiplied by ``kinship`` between trials of different sweeps, and
``offset`` is added between trials of the same one: every sweep has its own level, and shares its shape with the others
as far as the data say (a free-form task covariance of one parameter; Bonilla et al. 2007).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_JITTER = 1e-6
_STEPS = 25
"""Of the optimizer in one fit."""


@dataclass(frozen=True)
class Points:
    """Values of a metric at (trial, epoch), ordered by trial."""

    places: Array
    """Coordinates of every trial, shape (trials, columns)."""
    trials: Indices
    """Of each point: a row of ``places``; shape (points,)."""
    epochs: Array
    """Of each point, from 1; shape (points,)."""
    values: Array
    """Standardized; shape (points,)."""
    sweeps: Indices
    """Of every trial: 0 is the sweep that is searched, others are earlier ones; shape (trials,)."""

    @property
    def has_earlier(self) -> bool:
        """Whether there are trials of earlier sweeps."""
        return bool(self.sweeps.any())

    def with_more(self, trials: Indices, epochs: Array, values: Array) -> Self:
        """More points, of trials in any order."""
        return replace(
            self,
            trials=np.concatenate([self.trials, trials]),
            epochs=np.concatenate([self.epochs, epochs]),
            values=np.concatenate([self.values, values]),
        )

    def chosen(self, mask: npt.NDArray[np.bool_]) -> Self:
        """Some of the points, in their order."""
        return replace(self, trials=self.trials[mask], epochs=self.epochs[mask], values=self.values[mask])


@dataclass(frozen=True)
class Hyperparameters:
    """Of the covariance."""

    lengths: Array
    """Length scale of each parameter; coordinates span about 1."""
    memory: float
    """Of the Ornstein-Uhlenbeck covariance, in units of log epoch."""
    shared: float
    """Share of the variance between configurations that holds at all epochs alike, in (0, 1)."""
    own: float
    """Variance of a trial's curve around what similar configurations do."""
    noise: float
    scale: float
    """Variance between configurations."""
    offset: float
    """Variance between the levels of sweeps."""
    kinship: float
    """Share of the covariance of configurations that holds across sweeps, in (0, 1)."""

    @classmethod
    def typical(cls, parameters: int) -> Self:
        """The mode of the prior; in more dimensions, points are farther apart and lengths longer."""
        lengths = np.full(parameters, 0.5 * np.sqrt(max(parameters, 1)))
        return cls(lengths, memory=2.0, shared=0.7, own=0.02, noise=1e-3, scale=1.0, offset=0.5, kinship=0.4)

    def to_vector(self) -> Array:
        """Unconstrained: logarithms, and the logits of ``shared`` and ``kinship``."""
        shares = np.array([self.shared, self.kinship])
        shared, kinship = np.log(shares / (1 - shares))
        variances = np.log([self.own, self.noise, self.scale, self.offset])
        return np.array([np.log(self.memory), shared, *variances, kinship, *np.log(self.lengths)])

    @classmethod
    def from_vector(cls, vector: Sequence[float] | Array) -> Self:
        """The inverse of ``to_vector``."""
        vector = np.asarray(vector)
        memory, own, noise, scale, offset = np.exp(vector[[0, 2, 3, 4, 5]]).tolist()
        shared, kinship = (1 / (1 + np.exp(-vector[[1, 6]]))).tolist()
        return cls(np.exp(vector[7:]), memory, shared, own, noise, scale, offset, kinship)


_WIDTHS = np.array([0.5, 0.5, 1.0, 0.3, 0.3, 1.0, 1.5])
"""Standard deviations of the normal prior on ``Hyperparameters.to_vector``, but for the lengths."""
_LENGTH_WIDTH = 0.4
"""The same for each length."""


class Process:
    """The process given points."""

    def __init__(self, points: Points, groups: Indices, hyperparameters: Hyperparameters) -> None:
        """Factorize the covariance of the points.

        Args:
            points: What is known.
            groups: The parameter that each column of the coordinates belongs to, shape (columns,).
            hyperparameters: Of the covariance.
        """
        from scipy.linalg import cho_solve  # only where it computes: scipy takes 0.4 s to import

        self._points, self._groups, self._h = points, groups, hyperparameters
        squares = squared_distances(points.places, points.places, hyperparameters.lengths[groups])
        sweeps = points.sweeps[points.trials]
        covariance = self._covariance(matern(squares)[points.trials], points.trials, points.epochs, sweeps)
        covariance[np.diag_indices_from(covariance)] += hyperparameters.noise + _JITTER
        self._factor = np.linalg.cholesky(covariance)
        self._weights = cho_solve((self._factor, True), points.values)

    def predict(self, places: Array, trials: Indices, epochs: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at each query, of the curve in the sweep that is searched, without noise.

        Args:
            places: Coordinates, shape (queries, columns).
            trials: The trial of each query, -1 for a configuration that is no trial yet; shape (queries,).
            epochs: Of each query, shape (queries,).
        """
        mean, explained = self._explained(places, trials, epochs)
        variance = self._h.scale + self._h.own + self._level - np.einsum("ij,ij->j", explained, explained)
        return mean, np.sqrt(np.maximum(variance, 1e-9))

    def sample(self, places: Array, trials: Indices, epochs: Array, count: int, rng: np.random.Generator) -> Array:
        """Joint draws at the queries of ``predict``, which are of different trials; shape (count, queries)."""
        mean, explained = self._explained(places, trials, epochs)
        lengths = self._h.lengths[self._groups]
        over_time = self._h.shared + (1 - self._h.shared) * ornstein_uhlenbeck(epochs, epochs, self._h.memory)
        covariance = self._h.scale * matern(squared_distances(places, places, lengths)) * over_time + self._level
        covariance -= explained.T @ explained
        covariance[np.diag_indices_from(covariance)] += self._h.own + _JITTER
        draws: Array = mean + rng.standard_normal((count, len(mean))) @ np.linalg.cholesky(covariance).T
        return draws

    @property
    def _level(self) -> float:
        """Variance of the level of the searched sweep, where there are others."""
        return self._h.offset if self._points.has_earlier else 0.0

    def _explained(self, places: Array, trials: Indices, epochs: Array) -> tuple[Array, Array]:
        """Mean at each query; and a matrix E, shape (points, queries), such that E'E is the variance explained."""
        from scipy.linalg import solve_triangular  # only here, as above

        squares = squared_distances(places, self._points.places, self._h.lengths[self._groups])
        across = self._covariance(matern(squares), trials, epochs, np.zeros(len(trials), dtype=np.intp))
        explained = solve_triangular(self._factor, across.T, lower=True, check_finite=False)
        return across @ self._weights, explained

    def _covariance(self, alike: Array, trials: Indices, epochs: Array, sweeps: Indices) -> Array:
        """Between queries and points, shape (queries, points); ``alike`` is of queries and trials."""
        h, points = self._h, self._points
        similar = ornstein_uhlenbeck(epochs, points.epochs, h.memory)
        covariance: Array = h.scale * alike[:, points.trials] * (h.shared + (1 - h.shared) * similar)
        if points.has_earlier:
            is_same = sweeps[:, None] == points.sweeps[points.trials]
            covariance = covariance * np.where(is_same, 1.0, h.kinship) + h.offset * is_same
        covariance += h.own * (trials[:, None] == points.trials) * similar
        return covariance


def squared_distances(left: Array, right: Array, lengths: Array) -> Array:
    """Between the rows of two matrices, each column scaled by its length."""
    left, right = left / lengths, right / lengths
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    clipped: Array = np.maximum(squares, 0.0)
    return clipped


def matern(squares: Array) -> Array:
    """Matern 5/2 of squared distances."""
    root = np.sqrt(5 * squares)
    covariance: Array = (1 + root + root**2 / 3) * np.exp(-root)
    return covariance


def ornstein_uhlenbeck(left: Array, right: Array, memory: float) -> Array:
    """Of epochs, in their logarithm."""
    covariance: Array = np.exp(-np.abs(np.log(left)[:, None] - np.log(right)) / memory)
    return covariance


def fit(points: Points, groups: Indices, start: Array) -> Array:
    """The most likely hyperparameters given the points and the prior, as a vector; ``start`` is one too."""
    posterior = Posterior(points, groups, start.size - _WIDTHS.size)
    from scipy.optimize import minimize  # only here, as above

    best: Array = minimize(posterior, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    return best


class Posterior:
    """The negative logarithm of likelihood times prior, of hyperparameters as a vector."""

    def __init__(self, points: Points, groups: Indices, parameters: int) -> None:
        self._points = points
        self._first, self._trial = np.unique(points.trials, return_index=True, return_inverse=True)[1:]
        places = points.places[points.trials[self._first]]
        squares = (places[:, None, :] - places) ** 2
        self._squares = np.empty((parameters, *squares.shape[:2]))
        for group in range(parameters):
            self._squares[group] = squares[:, :, groups == group].sum(2)
        self._steps = np.abs(np.log(points.epochs)[:, None] - np.log(points.epochs))
        self._same = self._trial[:, None] == self._trial
        sweeps = points.sweeps[points.trials]
        self._same_sweep = (sweeps[:, None] == sweeps) if points.has_earlier else None
        self._mode = Hyperparameters.typical(parameters).to_vector()
        self._widths = np.concatenate([_WIDTHS, np.full(parameters, _LENGTH_WIDTH)])

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """The value and its gradient."""
        from scipy.linalg import cho_solve  # only here, as above
        from scipy.linalg.lapack import dpotri

        h = Hyperparameters.from_vector(vector)
        scaled = self._squares / (h.lengths**2)[:, None, None]
        squares = scaled.sum(0)
        rows = np.ix_(self._trial, self._trial)
        related = 1.0 if self._same_sweep is None else np.where(self._same_sweep, 1.0, h.kinship)
        alike = matern(squares)[rows] * related
        similar = np.exp(-self._steps / h.memory)
        over_time = h.shared + (1 - h.shared) * similar
        common, own = h.scale * alike * over_time, h.own * self._same * similar
        level = 0.0 if self._same_sweep is None else h.offset * self._same_sweep
        covariance = common + own + level
        covariance[np.diag_indices_from(covariance)] += h.noise + _JITTER
        try:
            factor = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(vector)
        weights = cho_solve((factor, True), self._points.values)
        # dpotri fills one triangle; W = (K^-1 - w w') / 2 gives the derivative sum(W * dK) of each hyperparameter.
        inverse = dpotri(factor, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        sensitivity = (inverse - np.outer(weights, weights)) / 2
        decay = similar * self._steps / h.memory
        by_point = sensitivity * h.scale * over_time * related
        by_trial = np.add.reduceat(np.add.reduceat(by_point, self._first, 0), self._first, 1)
        root = np.sqrt(5 * squares)
        by_distance = by_trial * (5 / 3) * (1 + root) * np.exp(-root)
        gradient = np.array(
            [
                (sensitivity * (h.scale * alike * (1 - h.shared) + h.own * self._same) * decay).sum(),
                (sensitivity * h.scale * alike * (1 - similar)).sum() * h.shared * (1 - h.shared),
                (sensitivity * own).sum(),
                h.noise * np.trace(sensitivity),
                (sensitivity * common).sum(),
                (sensitivity * level).sum(),
                0.0 if self._same_sweep is None else (sensitivity * common)[~self._same_sweep].sum() * (1 - h.kinship),
                *np.einsum("ij,gij->g", by_distance, scaled),
            ]
        )
        loss = self._points.values @ weights / 2 + np.log(np.diag(factor)).sum()
        deviation = (vector - self._mode) / self._widths
        return float(loss + deviation @ deviation / 2), gradient + deviation / self._widths
