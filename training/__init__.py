"""How a bundle comes to be: cohorts, lesions, fitting, evaluation, export."""
