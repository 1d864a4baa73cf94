/* The load that is to be expected, by the load of the last periods (a day, a week) at the same time.
 *
 * A period has RS_FORECAST_SLOTS parts. Of each, the highest load (the mean over look_back_period) is
 * kept, for as many periods as are asked for. What is expected from now to `ahead` from now on is the
 * mean of those periods, in the part where that is highest. A part of which nothing is known yet counts
 * for nothing: in the first period nothing is expected.
 *
 * Units:     load in requests, times in seconds since the epoch: by the wall clock, since days are.
 * Ownership: rs_forecast_fini; a zeroed struct is one that knows nothing and expects nothing.
 * Memory:    bounded: RS_FORECAST_SLOTS floats for each period.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { RS_FORECAST_SLOTS = 288 };

struct rs_forecast {
    double period;    /* s; 0: it is off */
    unsigned periods; /* that are remembered */
    float *peaks;     /* [periods + 1][RS_FORECAST_SLOTS]; < 0: not known */
    int64_t *of;      /* which period each row of it is; INT64_MIN: none */
    int64_t slot;     /* the one that now is in, counted from the epoch */
    double peak;      /* in it, so far; < 0: nothing was told */
};

struct rs_forecast_now {
    double load;  /* that is expected; < 0: nothing is known */
    unsigned of;  /* from so many periods */
    double at;    /* when: where that part begins, or now */
    double until; /* it stays as it is until then; only what is told changes it */
};

void rs_forecast_fini(struct rs_forecast *f);
/* Other numbers forget what was remembered; the same ones change nothing. period 0: off. */
void rs_forecast_set(struct rs_forecast *f, double period, unsigned periods);
/* So much load is there at `t`. True: a part is over, and there is more to remember. */
bool rs_forecast_tell(struct rs_forecast *f, double load, double t);
struct rs_forecast_now rs_forecast_at(const struct rs_forecast *f, double ahead, double t);

/* What it remembers, for a head that is started anew: an object; null: nothing. */
json_t *rs_forecast_json(const struct rs_forecast *f);
/* Of what rs_forecast_json gave, what fits; anything else is ignored. */
void rs_forecast_restore(struct rs_forecast *f, const json_t *json);
