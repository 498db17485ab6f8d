-- Put into the script as numbers: there a name would have to be looked up.
A_ID = 1
A_LIMIT = 2
A_GRANTED = 3
A_PIN = 4
A_SETTLED = 5
A_RESERVED = 6
A_PRESUMED = 7
A_OVERRUN = 8
A_CARRIED = 9
H_STATE = 1
H_WHEN = 2
H_TERMS = 3
H_SPENT = 4
H_FIRST = 5
N_NO_PIN = -2
N_MAX = 9007199254740991
N_BIG = 9007199254740992
