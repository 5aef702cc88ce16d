"""Knowledge distillation: `teachers.py` holds the teachers of a run and the student's distance from them."""
