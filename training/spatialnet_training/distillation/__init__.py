"""Knowledge distillation: `teachers.py` has the teachers of a run and the distillation loss."""
