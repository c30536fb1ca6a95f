-- Where other processes reach the one that writes, to pass calls on to it: its gRPC URL. Null when it serves none.
ALTER TABLE fence ADD url text;
