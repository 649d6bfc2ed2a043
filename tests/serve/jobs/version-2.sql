BEGIN TRANSACTION;
CREATE TABLE deleted_jobs (
	number INTEGER NOT NULL, 
	id VARCHAR(38) NOT NULL, 
	owner VARCHAR(40) NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "deleted_jobs" VALUES(4,'video_00000000000000000000000000000004','key_eb08e547f2374cbf975ce82479c4ebed');
CREATE TABLE deliveries (
	number INTEGER NOT NULL, 
	id VARCHAR(40) NOT NULL, 
	url TEXT NOT NULL, 
	owner VARCHAR(40) NOT NULL, 
	body TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	due_at FLOAT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (id)
);
INSERT INTO "deliveries" VALUES(1,'evt_475d727c56544c22af3141e85892a572','https://hooks.example/x','operator','{"id": "evt_475d727c56544c22af3141e85892a572", "object": "event", "created_at": 1003, "type": "video.completed", "data": {"id": "video_00000000000000000000000000000001"}}',0,1003.0);
INSERT INTO "deliveries" VALUES(2,'evt_1fee2a04ee9e47e6a51832408368d04f','https://hooks.example/x','operator','{"id": "evt_1fee2a04ee9e47e6a51832408368d04f", "object": "event", "created_at": 1008, "type": "video.failed", "data": {"id": "video_00000000000000000000000000000003"}}',0,1008.0);
CREATE TABLE jobs (
	number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	id VARCHAR(38) NOT NULL, 
	owner VARCHAR(40) NOT NULL, 
	status VARCHAR(12) NOT NULL, 
	model TEXT NOT NULL, 
	prompt TEXT NOT NULL, 
	size VARCHAR(20) NOT NULL, 
	seconds VARCHAR(20) NOT NULL, 
	settings JSON NOT NULL, 
	images JSON NOT NULL, 
	priority INTEGER NOT NULL, 
	created_at FLOAT NOT NULL, 
	revision INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	started_at FLOAT, 
	completed_at FLOAT, 
	expires_at FLOAT, 
	progress INTEGER NOT NULL, 
	stage TEXT, 
	step INTEGER NOT NULL, 
	steps INTEGER NOT NULL, 
	seconds_left FLOAT, 
	stage_durations JSON NOT NULL, 
	peak_memory_mb FLOAT, 
	estimated_s FLOAT, 
	bytes INTEGER, 
	warnings JSON NOT NULL, 
	error_code VARCHAR(40), 
	error_message TEXT, 
	worker VARCHAR(80), 
	lease_until FLOAT, 
	cancel_requested BOOLEAN NOT NULL, 
	deleted BOOLEAN NOT NULL, 
	webhook_url TEXT, 
	idempotency_key VARCHAR(255), 
	fingerprint VARCHAR(64) NOT NULL, 
	input_bytes INTEGER NOT NULL, 
	UNIQUE (owner, idempotency_key), 
	UNIQUE (id)
);
INSERT INTO "jobs" VALUES(1,'video_00000000000000000000000000000001','key_eb08e547f2374cbf975ce82479c4ebed','completed','ltx-2.3','A street ☁','64x64','0.4','{"num_frames": 9, "seed": 4}','[]',3,1001.0,2,1,1002.0,1003.0,1063.0,100,NULL,0,0,NULL,'{"denoise": 1.5}',12.5,NULL,1234,'[{"lora": "x", "message": "m", "keys": 2}]',NULL,NULL,NULL,NULL,0,0,NULL,'once','f',0);
INSERT INTO "jobs" VALUES(2,'video_00000000000000000000000000000002','key_eb08e547f2374cbf975ce82479c4ebed','in_progress','ltx-2.3','A street ☁','64x64','0.4','{"num_frames": 9, "seed": 4}','[{"frame": 0, "strength": 0.5, "crf": null}]',3,1004.0,2,1,1005.0,NULL,NULL,40,'denoise',3,8,9.5,'{"load weights": 1.0}',NULL,NULL,NULL,'[]',NULL,NULL,'worker-0',1036.0,0,0,NULL,NULL,'',77);
INSERT INTO "jobs" VALUES(3,'video_00000000000000000000000000000003','key_eb08e547f2374cbf975ce82479c4ebed','failed','ltx-2.3','A street ☁','64x64','0.4','{"num_frames": 9, "seed": 4}','[]',3,1007.0,1,0,NULL,1008.0,1068.0,0,NULL,0,0,NULL,'{}',NULL,NULL,NULL,'[]','cancelled','Cancelled.',NULL,NULL,0,0,NULL,NULL,'',0);
INSERT INTO "jobs" VALUES(5,'video_00000000000000000000000000000005','key_eb08e547f2374cbf975ce82479c4ebed','queued','ltx-2.3','A street ☁','64x64','0.4','{"num_frames": 9, "seed": 4}','[]',3,1010.0,0,0,NULL,NULL,NULL,0,NULL,0,0,NULL,'{}',NULL,NULL,NULL,'[]',NULL,NULL,NULL,NULL,0,0,'https://own.example/y',NULL,'',0);
CREATE TABLE keys (
	id VARCHAR(40) NOT NULL, 
	name TEXT NOT NULL, 
	hash BLOB NOT NULL, 
	priority INTEGER NOT NULL, 
	operator BOOLEAN NOT NULL, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name), 
	UNIQUE (hash)
);
INSERT INTO "keys" VALUES('key_eb08e547f2374cbf975ce82479c4ebed','ann',X'E4E871D985639B8E1FDB34969765C8C6318597647F8112726F7C3EA9AC80B7CE',3,1,1.79575390189659547801e+09);
CREATE TABLE sessions (
	hash BLOB NOT NULL, 
	key_id VARCHAR(40) NOT NULL, 
	expires_at FLOAT NOT NULL, 
	PRIMARY KEY (hash)
);
INSERT INTO "sessions" VALUES(X'619F5ABFBB3BE3EE6D3E097F76D28F1500672126A0B20F5FEF3C23661A50608C','key_eb08e547f2374cbf975ce82479c4ebed',1.79834590190092039104e+09);
CREATE INDEX by_turn ON jobs (status, priority, number);
CREATE INDEX by_owner ON jobs (owner, number);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',5);
COMMIT;
PRAGMA user_version = 2;
