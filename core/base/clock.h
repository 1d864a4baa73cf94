/* Time: int64_t nanoseconds. Monotonic unless a name says wall. Only loop owners call these; what
 * decides is handed `now`.
 */
#pragma once

#include <stdint.h>

#define RS_US INT64_C(1000)
#define RS_MS INT64_C(1000000)
#define RS_SEC INT64_C(1000000000)

int64_t rs_clock_now(void); /* monotonic */
double rs_clock_wall(void); /* seconds since the epoch */
