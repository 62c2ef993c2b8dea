-- Written by commit aaa1517, whose only migration was 0001: bench run --dataset tiny.npz --model cnn-small
-- --epochs 1 --train-size 96 -d vanilla -a fgsm,pgd3 --eps 0.1 -n 32 (tiny_npz of tests/conftest.py).
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE cells (
	"key" VARCHAR(64) NOT NULL, 
	weights_key VARCHAR(80) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	verdict VARCHAR(16), 
	dataset VARCHAR(200) NOT NULL, 
	model VARCHAR(80) NOT NULL, 
	defense VARCHAR(200) NOT NULL, 
	seed INTEGER NOT NULL, 
	attack VARCHAR(200) NOT NULL, 
	norm VARCHAR(8) NOT NULL, 
	eps VARCHAR(64) NOT NULL, 
	spec JSON NOT NULL, 
	n INTEGER NOT NULL, 
	draws INTEGER NOT NULL, 
	clean_hits DOUBLE, 
	robust_hits DOUBLE, 
	robust_any_hits DOUBLE, 
	worst_draw_hits INTEGER, 
	flags JSON, 
	forwards INTEGER NOT NULL, 
	backwards INTEGER NOT NULL, 
	seconds DOUBLE NOT NULL, 
	error TEXT, 
	run_id INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	updated DATETIME NOT NULL, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(weights_key) REFERENCES weights ("key"), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "cells" VALUES('eae908982e5ae5510f9443760141ce121081c7121102d843a1ad9f996af592c3','train:0b251b967b8b7c94a650bd8bfcc593917352c3b3c32fc9261fd2c6abafc9c331','done','ok','tiny','cnn-small','vanilla',0,'fgsm','linf','1/10','{"weights": "train:0b251b967b8b7c94a650bd8bfcc593917352c3b3c32fc9261fd2c6abafc9c331", "model": {"name": "cnn-small", "num_classes": 2, "in_shape": [1, 8, 8], "T": 4, "neuron": {"kind": "lif", "decay": 0.5, "v_threshold": 1.0, "detach_reset": false, "surrogate": "triangular:gamma=1.0", "params": []}, "mean": [0.2994], "std": [0.2089], "fingerprint": ""}, "test_hash": "2384d4bf5922932fc69cf12949eb9271f63c9a872503ff16d53c7c97e686771c", "n": 32, "attack": {"family": "fgsm", "steps": 0, "params": [["loss", "ce"]], "restarts": 1, "version": 1, "norm": "linf", "eps": "1/10", "low": 0.0, "high": 1.0, "surrogate": null, "fingerprint": ""}, "draws": 1, "attack_seed": 0, "dtype": "float32", "version": 1}',32,1,16.0,16.0,16.0,16,'{}',128,32,7.55531629997676645871e-02,NULL,1,'2026-11-23 22:57:17.959921','2026-11-23 22:57:18.060266');
INSERT INTO "cells" VALUES('59e25b1947ed7c9dfdafd8a0f557044890defc5bc4c50f2a9f0f38ca578daaae','train:0b251b967b8b7c94a650bd8bfcc593917352c3b3c32fc9261fd2c6abafc9c331','done','ok','tiny','cnn-small','vanilla',0,'pgd3','linf','1/10','{"weights": "train:0b251b967b8b7c94a650bd8bfcc593917352c3b3c32fc9261fd2c6abafc9c331", "model": {"name": "cnn-small", "num_classes": 2, "in_shape": [1, 8, 8], "T": 4, "neuron": {"kind": "lif", "decay": 0.5, "v_threshold": 1.0, "detach_reset": false, "surrogate": "triangular:gamma=1.0", "params": []}, "mean": [0.2994], "std": [0.2089], "fingerprint": ""}, "test_hash": "2384d4bf5922932fc69cf12949eb9271f63c9a872503ff16d53c7c97e686771c", "n": 32, "attack": {"family": "pgd", "steps": 3, "params": [["alpha", "51/1600"], ["loss", "ce"], ["random_start", true]], "restarts": 1, "version": 1, "norm": "linf", "eps": "1/10", "low": 0.0, "high": 1.0, "surrogate": null, "fingerprint": ""}, "draws": 1, "attack_seed": 0, "dtype": "float32", "version": 1}',32,1,16.0,16.0,16.0,16,'{}',224,96,1.57240253000054508447e-01,NULL,1,'2026-11-23 22:57:18.070150','2026-11-23 22:57:18.244242');
CREATE TABLE chunks (
	cell_key VARCHAR(64) NOT NULL, 
	start INTEGER NOT NULL, 
	n INTEGER NOT NULL, 
	outcome BLOB NOT NULL, 
	PRIMARY KEY (cell_key, start), 
	FOREIGN KEY(cell_key) REFERENCES cells ("key") ON DELETE CASCADE
);
INSERT INTO "chunks" VALUES('eae908982e5ae5510f9443760141ce121081c7121102d843a1ad9f996af592c3',0,32,X'010000002000000001000000789C5BB50A019C0EF4DA00F19E914A33100000FB3E8AB9');
INSERT INTO "chunks" VALUES('59e25b1947ed7c9dfdafd8a0f557044890defc5bc4c50f2a9f0f38ca578daaae',0,32,X'010000002000000001000000789C5BB50A019C0EF4DA00F19E914A33100000FB3E8AB9');
CREATE TABLE runs (
	id INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	provenance JSON NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "runs" VALUES(1,'2026-11-23 22:57:13.602595','{"version": "0.1.0", "commit": null, "dirty": null, "packages": {"torch": "2.14.1", "torchvision": "0.29.1", "numpy": "2.4.6", "scikit-learn": "1.9.1", "adversarial-robustness-toolbox": "1.20.1", "pyautoattack": "0.2.0"}, "python": "3.11.7", "machine": "Linux", "device": "cpu", "threads": 1, "deterministic": false, "cudnn": {"allow_tf32": false, "deterministic": true, "benchmark": false}, "command": "bench run --dataset tiny.npz --model cnn-small --epochs 1 --train-size 96 -d vanilla -a fgsm,pgd3 --eps 0.1 -n 32 --results r"}');
CREATE TABLE weights (
	"key" VARCHAR(80) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	spec JSON NOT NULL, 
	log JSON NOT NULL, 
	seconds DOUBLE, 
	run_id INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY ("key"), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);
INSERT INTO "weights" VALUES('train:0b251b967b8b7c94a650bd8bfcc593917352c3b3c32fc9261fd2c6abafc9c331','98ddda7b2764e4a7b0571438fe46347f9e6f1d2780ef43466518fc8eacfd21c7','{"model": {"name": "cnn-small", "num_classes": 2, "in_shape": [1, 8, 8], "T": 4, "neuron": {"kind": "lif", "decay": 0.5, "v_threshold": 1.0, "detach_reset": false, "surrogate": "triangular:gamma=1.0", "params": []}, "mean": [0.2994], "std": [0.2089], "fingerprint": ""}, "recipe": {"epochs": 1, "batch_size": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0005, "augment": false, "train_size": 96, "holdout": 9}, "defense": [], "train_hash": "c3cc98002e7db7edbc45112f2b5abbb82be11d3193f9132c07618546238e5c10", "seed": 0, "version": 1, "fingerprint": ""}','[{"epoch": 1, "loss": 0.7111679911613464, "penalty": 0.0, "clean": 0.4444444444444444, "robust": 0.4444444444444444, "images_per_second": 658.7064241487062}]',1.32077047999700880609e-01,1,'2026-11-23 22:57:17.884927');
CREATE INDEX ix_cells_table ON cells (dataset, model, defense, attack);
CREATE INDEX ix_cells_weights ON cells (weights_key);
COMMIT;
