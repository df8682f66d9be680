"""The papers behind the methods, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

from hepbridge import __version__
from hepbridge.core.errors import ConfigError

__all__ = ["BIBTEX", "METHODS", "everything", "of_methods", "of_model"]

BIBTEX: dict[str, str] = {
    "hepbridge": f"""\
@software{{hepbridge,
  author  = {{{{The hepbridge developers}}}},
  title   = {{hepbridge: learned maps between distributions of particle-physics data}},
  version = {{{__version__}}},
  license = {{BSD-3-Clause}}
}}""",
    "squirels": """\
@article{squirels,
  author = {Diefenbacher, Sascha and Mikuni, Vinicius and Nachman, Benjamin},
  title  = {{Refining Fast Calorimeter Simulations with a Schr\\"odinger Bridge}},
  year   = {2023},
  eprint = {2308.12339},
  archivePrefix = {arXiv},
  primaryClass  = {physics.ins-det}
}""",
    "dsb": """\
@inproceedings{dsb,
  author    = {De Bortoli, Valentin and Thornton, James and Heng, Jeremy and Doucet, Arnaud},
  title     = {{Diffusion Schr\\"odinger Bridge with Applications to
               Score-Based Generative Modeling}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021},
  eprint    = {2106.01357},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}""",
    "flow_matching": """\
@inproceedings{flow_matching,
  author    = {Lipman, Yaron and Chen, Ricky T. Q. and Ben-Hamu, Heli and Nickel, Maximilian and
               Le, Matt},
  title     = {{Flow Matching for Generative Modeling}},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  eprint    = {2210.02747},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "ot_cfm": """\
@article{ot_cfm,
  author = {Tong, Alexander and Fatras, Kilian and Malkin, Nikolay and Huguet, Guillaume and
            Zhang, Yanlei and Rector-Brooks, Jarrid and Wolf, Guy and Bengio, Yoshua},
  title  = {{Improving and generalizing flow-based generative models with
             minibatch optimal transport}},
  journal = {Transactions on Machine Learning Research},
  year   = {2024},
  eprint = {2302.00482},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "gflash": """\
@article{gflash,
  author  = {Grindhammer, G. and Rudowicz, M. and Peters, S.},
  title   = {{The Fast Simulation of Electromagnetic and Hadronic Showers}},
  journal = {Nucl. Instrum. Meth. A},
  volume  = {290},
  pages   = {469},
  year    = {1990}
}""",
    "gflash_homogeneous": """\
@misc{gflash_homogeneous,
  author = {Grindhammer, G. and Peters, S.},
  title  = {{The Parameterized Simulation of Electromagnetic Showers in Homogeneous and
             Sampling Calorimeters}},
  eprint = {hep-ex/0001020},
  archivePrefix = {arXiv}
}""",
    "geant4": """\
@article{geant4,
  author  = {Agostinelli, S. and others},
  title   = {{GEANT4 -- a simulation toolkit}},
  collaboration = {GEANT4},
  journal = {Nucl. Instrum. Meth. A},
  volume  = {506},
  pages   = {250--303},
  year    = {2003}
}""",
    "calochallenge": """\
@misc{calochallenge,
  author = {Krause, Claudius and others},
  title  = {{CaloChallenge 2022: A Community Challenge for Fast Calorimeter Simulation}},
  year   = {2024},
  eprint = {2410.21611},
  archivePrefix = {arXiv},
  primaryClass  = {physics.ins-det}
}""",
}

METHODS: dict[str, tuple[str, ...]] = {
    # recipes: the task, and the method that solves it
    "squirels": ("squirels", "flow_matching", "ot_cfm"),
    "squirels-paper": ("squirels", "dsb"),
    "squirels-paper-reduced": ("squirels", "dsb"),
    "quantile": ("squirels",),  # conditional quantile maps are textbook; the task is the paper's
    # transports
    "dsb": ("dsb",),
    "flow_matching": ("flow_matching", "ot_cfm"),
    # simulations, also those of the bundled sample; metrics
    "gflash": ("gflash", "gflash_homogeneous"),
    "geant4": ("geant4",),
    "calochallenge": ("calochallenge",),
}


def of_methods(names: Iterable[str]) -> list[str]:
    """Keys of `BIBTEX` to cite for the methods, ``hepbridge`` first, each once.

    Raises ConfigError for an unknown method.
    """
    keys = ["hepbridge"]
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"no citation for {name!r}; available: {', '.join(METHODS)}")
        keys += METHODS[name]
    return list(dict.fromkeys(keys))


def of_model(system: str, transport: str | None) -> list[str]:
    """Keys of `BIBTEX` to cite for a model: its task and, if it has one, its transport."""
    task = "quantile" if system == "squirels" else system.replace("_", "-")
    return of_methods([task, transport] if transport else [task])


def everything() -> list[str]:
    """Keys of all papers."""
    return [*BIBTEX]
