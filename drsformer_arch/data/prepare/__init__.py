"""`drsformer prepare`: a data set as it was downloaded becomes folders, LMDBs or stores."""
