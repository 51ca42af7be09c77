-- What a store of version 1 was like. Not to be changed: it stands for files that are out there.
PRAGMA application_id = 1114990444;
PRAGMA user_version = 1;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('migrated_by','bugle 0.1.0');
CREATE TABLE client (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
INSERT INTO client VALUES(1,'lamp-1');
INSERT INTO client VALUES(2,'lamp 2');
CREATE TABLE record (
        kind TEXT NOT NULL,
        owner TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        expires_ms INTEGER,
        PRIMARY KEY (kind, owner, key)
    ) STRICT, WITHOUT ROWID;
INSERT INTO record VALUES('message_id','app','id-1','{}',4102444800000);
INSERT INTO record VALUES('moderation','lamp-1','floor','{}',4102444800000);
INSERT INTO record VALUES('receipt','app','5','{}',NULL);
INSERT INTO record VALUES('received','lamp-1','7','{}',NULL);
INSERT INTO record VALUES('session','lamp-1','','{"v":1}',NULL);
INSERT INTO record VALUES('subscription','lamp-1','sig/g/floor','{}',NULL);
CREATE TABLE message (
        number INTEGER PRIMARY KEY,
        waiting INTEGER NOT NULL,
        qos INTEGER NOT NULL,
        retain INTEGER NOT NULL,
        urgent INTEGER NOT NULL,
        mode TEXT,
        sender TEXT NOT NULL,
        topic TEXT,
        to_group TEXT,
        to_client TEXT,
        expires_ms INTEGER,
        properties BLOB NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;
INSERT INTO message VALUES(1027,2,1,0,1,'only','app',NULL,'floor',NULL,4102444800000,X'',X'6f6e');
INSERT INTO message VALUES(2048,1,2,1,0,NULL,'app','a/b',NULL,NULL,NULL,X'0101',X'00ff');
CREATE TABLE queue (
        client INTEGER NOT NULL REFERENCES client (id),
        sequence INTEGER NOT NULL,
        message INTEGER NOT NULL REFERENCES message (number),
        bytes INTEGER NOT NULL,
        expires_ms INTEGER,
        packet_id INTEGER,
        released INTEGER NOT NULL DEFAULT 0,
        entry TEXT NOT NULL,
        PRIMARY KEY (client, sequence)
    ) STRICT, WITHOUT ROWID;
INSERT INTO queue VALUES(1,5,1027,2,4102444800000,9,1,'{"e":1}');
INSERT INTO queue VALUES(1,6,2048,4,NULL,NULL,0,'{"e":2}');
INSERT INTO queue VALUES(2,1,1027,2,4102444800000,NULL,0,'{"e":3}');
CREATE TABLE retained (
        topic TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        version_shard INTEGER NOT NULL,
        qos INTEGER NOT NULL,
        publisher TEXT NOT NULL,
        expires_ms INTEGER,
        properties BLOB NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;
INSERT INTO retained VALUES('a/b',12,1,1,'app',NULL,X'',X'72');
CREATE INDEX record_by_expiry ON record (expires_ms) WHERE expires_ms IS NOT NULL;
COMMIT;
