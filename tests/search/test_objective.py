"""The value of a trial: results before epochs, the best epoch, and the value of a failed trial."""

import math

from fer_sweep.config.sweep_file import Metric
from fer_sweep.search.objective import imputed_value, objective_value, reaches_targets

NAN = math.nan
UP, DOWN = Metric(name="x", goal="maximize", target=0.5), Metric(name="y", goal="minimize", target=0.5)


def test_metric_of_the_result_counts_before_reports_of_which_the_best_finite_one_counts(result):
    given = result(best_val_acc=0.6, macro_f1=0.55)
    losses = [{"val_loss": 0.8}, {"val_loss": NAN}, {"val_loss": 0.5}, {}, {"val_loss": 0.6}, {"val_loss": math.inf}]
    reports = [{"best_val_acc": 0.9}, *losses]
    for name, value in (("best_val_acc", 0.6), ("macro_f1", 0.55), ("seconds", 1.0), ("val_loss", 0.5)):
        assert objective_value(Metric(name=name), reports, given) == value
    assert objective_value(Metric(name="val_loss", goal="maximize"), reports, given) == 0.8
    assert objective_value(Metric(name="best_val_acc", goal="maximize"), reports, None) == 0.9


def test_trial_without_a_finite_value_has_none(result):
    assert objective_value(Metric(name="val_loss"), [{"val_loss": NAN}], None) is None
    assert objective_value(Metric(name="val_loss"), [], result()) is None
    assert objective_value(Metric(name="best_val_acc"), [], result(best_val_acc=NAN)) is None
    diverged_at_once = result(best_epoch=0, best_val_acc=0.0, train_val_gap=0.0, epochs=0, verdict="diverged")
    assert objective_value(Metric(name="train_val_gap"), [], diverged_at_once) is None


def test_value_of_a_failed_trial_is_the_one_that_the_metric_imputes():
    of_others, own = [1.0, 9.0, 5.0], [{"x": 2.0}, {"x": 4.0}, {"x": 3.0}, {"x": NAN}]
    for goal, worst, best in (("minimize", 9.0, 2.0), ("maximize", 1.0, 4.0)):
        for impute, value in (("worst", worst), ("best", best), ("latest", 3.0)):
            metric = Metric(name="x", goal=goal, impute=impute)
            assert imputed_value(metric, own, of_others) == value
            assert imputed_value(metric, [], []) is None


def test_targets_are_reached_by_finite_values_and_all_of_them_together():
    values = (0.4, 0.5, 0.6, NAN, math.inf, None)
    assert [reaches_targets([UP], [value]) for value in values] == [False, True, True, False, False, False]
    assert [reaches_targets([DOWN], [value]) for value in values] == [True, True, False, False, False, False]
    assert reaches_targets([UP, DOWN, Metric(name="z")], [0.6, 0.4, None])
    assert not reaches_targets([UP, DOWN], [0.6, 0.6])
    assert not reaches_targets([Metric(name="x")], [0.0])
