/* Traces that a simulation replays: whatever stands in the file, the rows are in order of time and within
 * bounds, or one line says what is wrong and where. */
#include "cmd/simulate_trace.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct rs_sim_trace *t)
{
    assert(t->n > 0 && t->from_log <= t->n);
    for (size_t i = 0; i < t->n; i++) {
        const struct rs_sim_arrival *a = &t->arrivals[i];

        assert(a->t >= 0 && a->t <= RS_SIM_TIME_MAX && (i == 0 || a[-1].t <= a->t));
        assert(a->works > 0 && a->work + a->works <= t->n_works && a->line > 0);
        for (unsigned k = 0; k < a->works; k++) {
            const struct rs_sim_work *w = &t->works[a->work + k];

            assert(w->service_s <= RS_SIM_TIME_MAX && (!w->deployment || *w->deployment));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rs_sim_trace t = {0};
    struct rs_error err = {0};

    if (rs_sim_trace_parse(&t, (const char *)data, size, "trace", &err) < 0) {
        assert(strncmp(err.msg, "trace:", 6) == 0 && !strchr(err.msg, '\n'));
        return 0;
    }
    check(&t);
    rs_sim_trace_fini(&t);
    return 0;
}
