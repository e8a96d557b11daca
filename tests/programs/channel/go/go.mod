module aetherless.example/peer

go 1.19

require aetherless.example/client v0.0.0

replace aetherless.example/client => ../../../../clients/go
