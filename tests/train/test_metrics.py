"""A run's curves: which are drawn."""

from matplotlib.figure import Figure

from distillcache.train.metrics import curves

ROW = {"epoch": 1, "lr": 1e-3, "loss": 2.0, "loss_class": 1.5, "loss_distill": 2.5, "top1_class": 10.0}
HEADS = {"top1_distill": 20.0, "top1_both": 15.0}


def test_both_heads_losses_and_top1_are_drawn() -> None:
    losses, top1, _ = curves([ROW | HEADS, ROW | HEADS | {"epoch": 2}], Figure()).axes
    assert {line.get_label() for line in losses.lines} == {"both, weighted", "class", "distill"}
    assert {line.get_label() for line in top1.lines} == {"class", "distill", "both"}
    assert [line.get_color() for line in losses.lines][1:] == [line.get_color() for line in top1.lines][:2]


def test_epochs_before_losses_were_kept_by_head_leave_a_gap() -> None:
    old = {name: value for name, value in ROW.items() if not name.startswith("loss_")}
    losses = curves([old, ROW | {"epoch": 2}], Figure()).axes[0]
    values = {line.get_label(): list(line.get_ydata()) for line in losses.lines}
    assert values["both, weighted"] == [2.0, 2.0]
    assert values["class"][0] != values["class"][0] and values["class"][1] == 1.5
