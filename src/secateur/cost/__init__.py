"""What a run will take before it is started: time, memory and disk, from config.json and a look at the machine."""

from secateur.cost.machine import Machine, probe
from secateur.cost.predict import FITTED, Price, price
from secateur.cost.work import VERBS, Load, Work, work

__all__ = ["FITTED", "VERBS", "Load", "Machine", "Price", "Work", "price", "probe", "work"]
