#include "sched/message.h"

#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/text.h"

#include <stdlib.h>
#include <string.h>

static char *bounded(const char *text, size_t most)
{
    size_t len = text ? strlen(text) : 0;
    struct rs_buf out = {0};

    if (!text)
        return NULL;
    const char *at = len > most ? text + (len - most) : text;
    const char *end = text + len;

    while (at < end) {
        const char *from = at;

        if (rs_utf8_next(&at, end) < 0)
            rs_buf_puts(&out, "\xef\xbf\xbd");
        else
            rs_buf_append(&out, from, (size_t)(at - from));
    }
    while (rs_buf_len(&out) > 0 && out.data[out.end - 1] == '\n')
        out.data[--out.end] = '\0';
    return out.data ? rs_buf_steal(&out) : rs_strdup("");
}

char *rs_message_bounded(const char *text)
{
    return bounded(text, RS_MESSAGE_MAX);
}

void rs_message_shorten(char **text, size_t most)
{
    char *old = *text;

    if (!old || strlen(old) <= most)
        return;
    *text = bounded(old, most);
    free(old);
}
