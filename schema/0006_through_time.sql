-- Of recurrent layers: the error signal at the first step that they read, and at the last.
ALTER TABLE layer_sample ADD COLUMN delta_first REAL;
ALTER TABLE layer_sample ADD COLUMN delta_last REAL;
