#!lua flags=allow-oom
-- ARGV[4] account key.
-- @common
sweep(true)
return done(balance(ARGV[4]))
