/* A TZif file, and a cron line behind it after a NUL: what is accepted is asked, and answers in its bounds. */
#include "core/base/alloc.h"
#include "core/base/cron.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask_zone(const struct rs_zone *z)
{
    static const int64_t times[] = {INT64_MIN / 1000, -2208988800, 0,
                                    1774746000,       4102444800,  INT64_MAX / 1000};

    for (size_t i = 0; i < RS_COUNT(times); i++) {
        int64_t at[2];
        int32_t offset = rs_zone_offset(z, times[i]);
        unsigned n = rs_zone_instants(z, times[i] + offset, at);

        assert(offset >= -26 * 3600 && offset <= 26 * 3600);
        for (unsigned k = 0; k < n; k++)
            assert(at[k] + rs_zone_offset(z, at[k]) == times[i] + offset);
    }
}

static void ask_cron(const struct rs_cron *c, const struct rs_zone *z)
{
    int64_t last = 0, next = 0, t = 1774746000;

    if (rs_cron_last(c, z, t, &last))
        assert(last <= t);
    if (rs_cron_next(c, z, t, &next))
        assert(next > t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *mark = "\ncron ";
    const uint8_t *line = memmem(data, size, mark, strlen(mark));
    size_t len = line ? (size_t)(line - data) : size;
    rs_auto(rs_freep) char *text =
        line ? rs_strndup((const char *)line + strlen(mark), size - len - strlen(mark)) : NULL;
    rs_auto(rs_zone_freep) struct rs_zone *z = NULL;
    struct rs_error err = {0};
    struct rs_cron c;

    if (rs_zone_parse(&z, data, len, &err) < 0)
        assert(err.msg[0] && !strchr(err.msg, '\n'));
    else
        ask_zone(z);
    err.msg[0] = '\0';
    if (text && rs_cron_parse(&c, text, &err) == 0)
        ask_cron(&c, z);
    else
        assert(!text || err.msg[0]);
    return 0;
}
