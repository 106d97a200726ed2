"""How well a judge agrees with people: labelled data, runs against a sidecar, figures, report."""
