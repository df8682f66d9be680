"""The papers behind the methods, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

from hepbridge import __version__
from hepbridge.core.errors import ConfigError

__all__ = [
    "BIBTEX",
    "METHODS",
    "everything",
    "of_generator",
    "of_methods",
    "of_model",
    "of_unfolding",
]

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
    "distillation": """\
@misc{distillation,
  author = {Luhman, Eric and Luhman, Troy},
  title  = {{Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed}},
  year   = {2021},
  eprint = {2101.02388},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "i2sb": """\
@inproceedings{i2sb,
  author    = {Liu, Guan-Horng and Vahdat, Arash and Huang, De-An and Theodorou, Evangelos A. and
               Nie, Weili and Anandkumar, Anima},
  title     = {{I$^2$SB: Image-to-Image Schr\\"odinger Bridge}},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
  eprint    = {2302.05872},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}""",
    "sbunfold": """\
@article{sbunfold,
  author = {Diefenbacher, Sascha and Liu, Guan-Horng and Mikuni, Vinicius and Nachman, Benjamin and
            Nie, Weili},
  title  = {{Improving Generative Model-based Unfolding with Schr\\"odinger Bridges}},
  journal = {Phys. Rev. D},
  volume = {109},
  pages  = {076011},
  year   = {2024},
  eprint = {2308.12351},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "augmented_bridge": """\
@misc{augmented_bridge,
  author = {De Bortoli, Valentin and Liu, Guan-Horng and Chen, Tianrong and
            Theodorou, Evangelos A. and Nie, Weili},
  title  = {{Augmented Bridge Matching}},
  year   = {2023},
  eprint = {2311.06978},
  archivePrefix = {arXiv}
}""",
    "dsbm": """\
@inproceedings{dsbm,
  author    = {Shi, Yuyang and De Bortoli, Valentin and Campbell, Andrew and Doucet, Arnaud},
  title     = {{Diffusion Schr\\"odinger Bridge Matching}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  eprint    = {2303.16852},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}""",
    "dsbm_online": """\
@inproceedings{dsbm_online,
  author    = {De Bortoli, Valentin and Korshunova, Iryna and Mnih, Andriy and Doucet, Arnaud},
  title     = {{Schr\\"odinger Bridge Flow for Unpaired Data Translation}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024},
  eprint    = {2409.09347},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "fast_perfekt": """\
@article{fast_perfekt,
  author  = {Wolf, Moritz and Stietz, Lars O. and Connor, Patrick L. S. and Schleper, Peter and
             Bein, Samuel},
  title   = {{Fast Perfekt: Regression-based refinement of fast simulation}},
  journal = {SciPost Phys. Core},
  volume  = {8},
  pages   = {021},
  year    = {2025},
  eprint  = {2410.15992},
  archivePrefix = {arXiv}
}""",
    "mmd": """\
@article{mmd,
  author  = {Gretton, Arthur and Borgwardt, Karsten M. and Rasch, Malte J. and
             Sch\\"olkopf, Bernhard and Smola, Alexander},
  title   = {{A Kernel Two-Sample Test}},
  journal = {Journal of Machine Learning Research},
  volume  = {13},
  pages   = {723--773},
  year    = {2012}
}""",
    "light_sb": """\
@inproceedings{light_sb,
  author    = {Korotin, Alexander and Gushchin, Nikita and Burnaev, Evgeny},
  title     = {{Light Schr\\"odinger Bridge}},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  eprint    = {2310.01174},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "dbim": """\
@inproceedings{dbim,
  author    = {Zheng, Kaiwen and He, Guande and Chen, Jianfei and Bao, Fan and Zhu, Jun},
  title     = {{Diffusion Bridge Implicit Models}},
  booktitle = {International Conference on Learning Representations},
  year      = {2025},
  eprint    = {2405.15885},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "spline_flow": """\
@inproceedings{spline_flow,
  author    = {Durkan, Conor and Bekasov, Artur and Murray, Iain and Papamakarios, George},
  title     = {{Neural Spline Flows}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2019},
  eprint    = {1906.04032},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}""",
    "cinn": """\
@article{cinn,
  author  = {Bellagente, Marco and Butter, Anja and Kasieczka, Gregor and Plehn, Tilman and
             Rousselot, Armand and Winterhalder, Ramon and Ardizzone, Lynton and
             K\\"othe, Ullrich},
  title   = {{Invertible Networks or Partons to Detector and Back Again}},
  journal = {SciPost Phys.},
  volume  = {9},
  pages   = {074},
  year    = {2020},
  eprint  = {2006.06685},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "parallel_wavenet": """\
@inproceedings{parallel_wavenet,
  author    = {van den Oord, A{\\"a}ron and others},
  title     = {{Parallel WaveNet: Fast High-Fidelity Speech Synthesis}},
  booktitle = {International Conference on Machine Learning},
  year      = {2018},
  eprint    = {1711.10433},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "inverse_autoregressive": """\
@inproceedings{inverse_autoregressive,
  author    = {Kingma, Diederik P. and Salimans, Tim and Jozefowicz, Rafal and Chen, Xi and
               Sutskever, Ilya and Welling, Max},
  title     = {{Improved Variational Inference with Inverse Autoregressive Flow}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2016},
  eprint    = {1606.04934},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "bayesian_inn": """\
@article{bayesian_inn,
  author  = {Bellagente, Marco and Hau{\\ss}mann, Manuel and Luchmann, Michel and Plehn, Tilman},
  title   = {{Understanding Event-Generation Networks via Uncertainties}},
  journal = {SciPost Phys.},
  volume  = {13},
  pages   = {003},
  year    = {2022},
  eprint  = {2104.04543},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "precision_inn": """\
@article{precision_inn,
  author  = {Butter, Anja and Heimel, Theo and Hummerich, Sander and Krebs, Tobias and
             Plehn, Tilman and Rousselot, Armand and Vent, Sophia},
  title   = {{Generative Networks for Precision Enthusiasts}},
  journal = {SciPost Phys.},
  volume  = {14},
  pages   = {078},
  year    = {2023},
  eprint  = {2110.13632},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "caloflow": """\
@misc{caloflow,
  author = {Krause, Claudius and Shih, David},
  title  = {{CaloFlow: Fast and Accurate Generation of Calorimeter Showers with
             Normalizing Flows}},
  year   = {2021},
  eprint = {2106.05285},
  archivePrefix = {arXiv},
  primaryClass  = {physics.ins-det}
}""",
    "caloflow_ii": """\
@misc{caloflow_ii,
  author = {Krause, Claudius and Shih, David},
  title  = {{CaloFlow II: Even Faster and Still Accurate Generation of Calorimeter Showers with
             Normalizing Flows}},
  year   = {2021},
  eprint = {2110.11377},
  archivePrefix = {arXiv},
  primaryClass  = {physics.ins-det}
}""",
    "caloinn": """\
@misc{caloinn,
  author = {Ernst, Florian and Favaro, Luigi and Krause, Claudius and Plehn, Tilman and
            Shih, David},
  title  = {{Normalizing Flows for High-Dimensional Detector Simulations}},
  year   = {2023},
  eprint = {2312.09290},
  archivePrefix = {arXiv}
}""",
    "local_reparametrisation": """\
@inproceedings{local_reparametrisation,
  author    = {Kingma, Diederik P. and Salimans, Tim and Welling, Max},
  title     = {{Variational Dropout and the Local Reparameterization Trick}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2015},
  eprint    = {1506.02557},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}""",
    "fpcd": """\
@article{fpcd,
  author  = {Mikuni, Vinicius and Nachman, Benjamin and Pettee, Mariel},
  title   = {{Fast Point Cloud Generation with Diffusion Models in High Energy Physics}},
  journal = {Phys. Rev. D},
  volume  = {108},
  pages   = {036025},
  year    = {2023},
  eprint  = {2304.01266},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "progressive_distillation": """\
@inproceedings{progressive_distillation,
  author    = {Salimans, Tim and Ho, Jonathan},
  title     = {{Progressive Distillation for Fast Sampling of Diffusion Models}},
  booktitle = {International Conference on Learning Representations},
  year      = {2022},
  eprint    = {2202.00512},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "dpm_solver": """\
@misc{dpm_solver,
  author = {Lu, Cheng and Zhou, Yuhao and Bao, Fan and Chen, Jianfei and Li, Chongxuan and
            Zhu, Jun},
  title  = {{DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models}},
  year   = {2022},
  eprint = {2211.01095},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "edm": """\
@inproceedings{edm,
  author    = {Karras, Tero and Aittala, Miika and Aila, Timo and Laine, Samuli},
  title     = {{Elucidating the Design Space of Diffusion-Based Generative Models}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022},
  eprint    = {2206.00364},
  archivePrefix = {arXiv}
}""",
    "ddim": """\
@inproceedings{ddim,
  author    = {Song, Jiaming and Meng, Chenlin and Ermon, Stefano},
  title     = {{Denoising Diffusion Implicit Models}},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2010.02502},
  archivePrefix = {arXiv}
}""",
    "ddpm": """\
@inproceedings{ddpm,
  author    = {Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  title     = {{Denoising Diffusion Probabilistic Models}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2020},
  eprint    = {2006.11239},
  archivePrefix = {arXiv}
}""",
    "score_sde": """\
@inproceedings{score_sde,
  author    = {Song, Yang and Sohl-Dickstein, Jascha and Kingma, Diederik P. and
               Kumar, Abhishek and Ermon, Stefano and Poole, Ben},
  title     = {{Score-Based Generative Modeling through Stochastic Differential Equations}},
  booktitle = {International Conference on Learning Representations},
  year      = {2021},
  eprint    = {2011.13456},
  archivePrefix = {arXiv}
}""",
    "deis": """\
@inproceedings{deis,
  author    = {Zhang, Qinsheng and Chen, Yongxin},
  title     = {{Fast Sampling of Diffusion Models with Exponential Integrator}},
  booktitle = {International Conference on Learning Representations},
  year      = {2023},
  eprint    = {2204.13902},
  archivePrefix = {arXiv}
}""",
    "unipc": """\
@inproceedings{unipc,
  author    = {Zhao, Wenliang and Bai, Lujia and Rao, Yongming and Zhou, Jie and Lu, Jiwen},
  title     = {{UniPC: A Unified Predictor-Corrector Framework for
               Fast Sampling of Diffusion Models}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  eprint    = {2302.04867},
  archivePrefix = {arXiv}
}""",
    "restart": """\
@inproceedings{restart,
  author    = {Xu, Yilun and Deng, Mingyang and Cheng, Xiang and Tian, Yonglong and
               Liu, Ziming and Jaakkola, Tommi},
  title     = {{Restart Sampling for Improving Generative Processes}},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  eprint    = {2306.14878},
  archivePrefix = {arXiv}
}""",
    "mean_flow": """\
@misc{mean_flow,
  author = {Geng, Zhengyang and Deng, Mingyang and Bai, Xingjian and Kolter, J. Zico and
            He, Kaiming},
  title  = {{Mean Flows for One-step Generative Modeling}},
  year   = {2025},
  eprint = {2505.13447},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "consistency": """\
@inproceedings{consistency,
  author    = {Song, Yang and Dhariwal, Prafulla and Chen, Mark and Sutskever, Ilya},
  title     = {{Consistency Models}},
  booktitle = {International Conference on Machine Learning},
  year      = {2023},
  eprint    = {2303.01469},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "multistep_consistency": """\
@misc{multistep_consistency,
  author = {Heek, Jonathan and Hoogeboom, Emiel and Salimans, Tim},
  title  = {{Multistep Consistency Models}},
  year   = {2024},
  eprint = {2403.06807},
  archivePrefix = {arXiv},
  primaryClass  = {cs.LG}
}""",
    "caloclouds_ii": """\
@misc{caloclouds_ii,
  author = {Buhmann, Erik and Gaede, Frank and Kasieczka, Gregor and Korol, Anatolii and
            Korcari, William and Kr\\"uger, Katja and McKeown, Peter},
  title  = {{CaloClouds II: Ultra-Fast Geometry-Independent Highly-Granular
            Calorimeter Simulation}},
  year   = {2023},
  eprint = {2309.05704},
  archivePrefix = {arXiv},
  primaryClass  = {physics.ins-det}
}""",
    "min_snr": """\
@inproceedings{min_snr,
  author    = {Hang, Tiankai and Gu, Shuyang and Li, Chen and Bao, Jianmin and Chen, Dong and
               Hu, Han and Geng, Xin and Guo, Baining},
  title     = {{Efficient Diffusion Training via Min-SNR Weighting Strategy}},
  booktitle = {International Conference on Computer Vision},
  year      = {2023},
  eprint    = {2303.09556},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}""",
    "soft_min_snr": """\
@misc{soft_min_snr,
  author = {Crowson, Katherine and Baumann, Stefan Andreas and Birch, Alex and
            Abraham, Tanishq Mathew and Kaplan, Daniel Z. and Shippole, Enrico},
  title  = {{Scalable High-Resolution Pixel-Space Image Synthesis with
             Hourglass Diffusion Transformers}},
  year   = {2024},
  eprint = {2401.11605},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}""",
    "choose_your_diffusion": """\
@misc{choose_your_diffusion,
  author = {Jiang, Cheng and Qian, Sitian and Qu, Huilin},
  title  = {{Choose Your Diffusion: Efficient and flexible ways to accelerate the diffusion model
             in fast high energy physics simulation}},
  year   = {2024},
  eprint = {2401.13162},
  archivePrefix = {arXiv}
}""",
    "calodiffusion": """\
@article{calodiffusion,
  author  = {Amram, Oz and Pedro, Kevin},
  title   = {{Denoising diffusion models with geometry adaptation for high fidelity calorimeter
              simulation}},
  journal = {Phys. Rev. D},
  volume  = {108},
  pages   = {072014},
  year    = {2023},
  eprint  = {2308.03876},
  archivePrefix = {arXiv},
  primaryClass  = {physics.ins-det}
}""",
    "unet": """\
@inproceedings{unet,
  author    = {Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas},
  title     = {{U-Net: Convolutional Networks for Biomedical Image Segmentation}},
  booktitle = {Medical Image Computing and Computer-Assisted Intervention},
  year      = {2015},
  eprint    = {1505.04597},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}""",
    "dit": """\
@inproceedings{dit,
  author    = {Peebles, William and Xie, Saining},
  title     = {{Scalable Diffusion Models with Transformers}},
  booktitle = {International Conference on Computer Vision},
  year      = {2023},
  eprint    = {2212.09748},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}""",
    "calodream": """\
@misc{calodream,
  author = {Favaro, Luigi and Ore, Ayodele and Palacios Schweitzer, Sofia and Plehn, Tilman},
  title  = {{CaloDREAM -- Detector Response Emulation via Attentive flow Matching}},
  year   = {2024},
  eprint = {2405.09629},
  archivePrefix = {arXiv}
}""",
    "omnifold": """\
@article{omnifold,
  author  = {Andreassen, Anders and Komiske, Patrick T. and Metodiev, Eric M. and
             Nachman, Benjamin and Thaler, Jesse},
  title   = {{OmniFold: A Method to Simultaneously Unfold All Observables}},
  journal = {Phys. Rev. Lett.},
  volume  = {124},
  pages   = {182001},
  year    = {2020},
  eprint  = {1911.09107},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "omnifold_acceptance": """\
@misc{omnifold_acceptance,
  author = {Andreassen, Anders and Komiske, Patrick T. and Metodiev, Eric M. and
            Nachman, Benjamin and Suresh, Adi and Thaler, Jesse},
  title  = {{Scaffolding Simulations with Deep Learning for High-dimensional Deconvolution}},
  year   = {2021},
  eprint = {2105.04448},
  archivePrefix = {arXiv},
  primaryClass  = {stat.ML}
}""",
    "density_ratio": """\
@misc{density_ratio,
  author = {Cranmer, Kyle and Pavez, Juan and Louppe, Gilles},
  title  = {{Approximating Likelihood Ratios with Calibrated Discriminative Classifiers}},
  year   = {2015},
  eprint = {1506.02169},
  archivePrefix = {arXiv},
  primaryClass  = {stat.AP}
}""",
    "pythia": """\
@article{pythia,
  author = {Bierlich, Christian and others},
  title  = {{A comprehensive guide to the physics and usage of PYTHIA 8.3}},
  journal = {SciPost Phys. Codeb.},
  year   = {2022},
  eprint = {2203.11601},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "fastjet": """\
@article{fastjet,
  author = {Cacciari, Matteo and Salam, Gavin P. and Soyez, Gregory},
  title  = {{FastJet User Manual}},
  journal = {Eur. Phys. J. C},
  year   = {2012},
  eprint = {1111.6097},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ph}
}""",
    "delphes": """\
@article{delphes,
  author = {{DELPHES 3 collaboration}},
  title  = {{DELPHES 3: A modular framework for fast simulation of a generic collider experiment}},
  journal = {JHEP},
  year   = {2014},
  eprint = {1307.6346},
  archivePrefix = {arXiv},
  primaryClass  = {hep-ex}
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
    "prdc": """\
@inproceedings{prdc,
  author    = {Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and
               Yoo, Jaejun},
  title     = {{Reliable Fidelity and Diversity Metrics for Generative Models}},
  booktitle = {International Conference on Machine Learning},
  year      = {2020},
  eprint    = {2002.09797},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
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
    "squirels": ("squirels", "flow_matching", "ot_cfm", "distillation"),
    "squirels-flow": ("squirels", "flow_matching", "ot_cfm"),
    "squirels-paper": ("squirels", "dsb"),
    "squirels-paper-reduced": ("squirels", "dsb"),
    "squirels-i2sb": ("squirels", "i2sb", "sbunfold"),
    "squirels-dsbm": ("squirels", "dsbm", "dsbm_online"),
    "squirels-mmd": ("squirels", "fast_perfekt", "mmd"),
    "quantile": ("squirels",),  # conditional quantile maps are textbook; the task is the paper's
    # recipes of unfolding
    "sbunfold": ("sbunfold", "i2sb", "augmented_bridge", "dbim", "distillation"),
    "sbunfold-teacher": ("sbunfold", "i2sb", "augmented_bridge", "dbim"),
    "sbunfold-paper": ("sbunfold", "i2sb"),
    "cinn": ("cinn", "spline_flow"),
    "fpcd": ("fpcd", "sbunfold", "progressive_distillation", "dpm_solver"),
    "omnifold": ("omnifold", "omnifold_acceptance", "density_ratio"),
    # recipes of generation
    "calo-cfm": ("caloflow", "calodream", "flow_matching", "ot_cfm", "distillation"),
    "calo-cfm-teacher": ("caloflow", "calodream", "flow_matching", "ot_cfm"),
    "caloflow-teacher": ("caloflow", "spline_flow"),
    "caloflow-student": ("caloflow", "caloflow_ii", "spline_flow"),
    "caloinn": ("caloinn", "spline_flow"),
    "caloinn-bayesian": ("caloinn", "precision_inn", "bayesian_inn", "spline_flow"),
    "calo-diffusion": ("caloflow", "calodiffusion", "edm"),
    "marginals": (),  # textbook
    # transports
    "dsb": ("dsb",),
    "flow_matching": ("flow_matching", "ot_cfm"),
    "staged_flow": ("flow_matching", "ot_cfm"),
    "distilled": ("distillation",),
    "mmd": ("fast_perfekt", "mmd"),
    "light_sb": ("light_sb",),
    "i2sb": ("i2sb", "sbunfold", "augmented_bridge", "dbim"),
    "dsbm": ("dsbm", "dsbm_online"),
    "spline_flow": ("spline_flow", "cinn"),
    "inverse_flow": ("caloflow_ii", "parallel_wavenet", "inverse_autoregressive", "spline_flow"),
    "bayesian_flow": (
        "caloinn",
        "precision_inn",
        "bayesian_inn",
        "local_reparametrisation",
        "spline_flow",
    ),
    "diffusion": ("progressive_distillation", "fpcd", "sbunfold", "dpm_solver"),
    "mean_flow": ("mean_flow", "flow_matching", "ot_cfm"),
    "consistency": ("consistency", "caloclouds_ii", "multistep_consistency"),
    # samplers of diffusions
    "euler": ("ddim",),
    "ddpm": ("ddpm", "ddim"),
    "euler_maruyama": ("score_sde",),
    "heun": ("edm",),
    "edm": ("edm",),  # also the transport
    "restart": ("restart", "edm"),
    "dpmpp_2m": ("dpm_solver",),
    "dpmpp_2m_sde": ("dpm_solver",),
    "lms2": ("deis",),
    "lms3": ("deis",),
    "lms4": ("deis",),
    "unipc2": ("unipc",),
    "unipc3": ("unipc",),
    # weightings of noise levels; networks
    "min_snr": ("min_snr",),
    "soft_min_snr": ("soft_min_snr", "min_snr"),
    "jiang": ("choose_your_diffusion", "min_snr"),
    "unet": ("unet", "calodiffusion"),
    "transformer": ("dit", "calodream"),
    # weighters
    "density_ratio": ("density_ratio",),
    # simulations, also those of the bundled sample; metrics
    "gflash": ("gflash", "gflash_homogeneous"),
    "geant4": ("geant4",),
    "zjets": ("pythia", "fastjet", "delphes"),
    "calochallenge": ("calochallenge",),
    "prdc": ("prdc",),
}


_PUBLISHED = {"flow_matching": "calodream", "edm": "calodiffusion", "inverse_flow": "caloflow_ii"}
"""Transports, and who first made showers of noise with them."""


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


def of_unfolding(transport: str | None, teacher: str | None, iterations: int) -> list[str]:
    """Keys of `BIBTEX` to cite for a model of an unfolding.

    ``transport`` draws events, and has learned from a ``teacher`` if it is a student; ``iterations``
    are those of OmniFold, for weights and for a prior alike.
    """
    methods = [teacher, transport, "omnifold" if iterations else None]
    return of_methods(name for name in methods if name)


def of_generator(steps: list[tuple[str, str | None]]) -> list[str]:
    """Keys of `BIBTEX` to cite for a generator: of who first took its steps, and of its transports.

    ``steps`` are pairs of a transport and its teacher, if it has one.
    """
    names = [name for step in steps for name in reversed(step) if name]
    keys = ["caloflow"] if len(steps) > 1 else ["caloinn"] if names else []
    keys += [_PUBLISHED[name] for name in names if name in _PUBLISHED]
    return list(dict.fromkeys(["hepbridge", *keys, *of_methods(names)]))


def everything() -> list[str]:
    """Keys of all papers."""
    return [*BIBTEX]
