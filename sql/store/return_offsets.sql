-- How far source files had been read when the backup was made; what is known now stays.

insert or ignore into main.ingest_file select * from backup.ingest_file;
