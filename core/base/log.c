#include "core/base/log.h"

#include "core/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static enum rs_log_level threshold = RS_LOG_INFO;
static enum rs_log_format form = RS_LOG_TEXT;

static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};

void rs_log_setup(enum rs_log_level level, enum rs_log_format format)
{
    threshold = level;
    form = format;
}

enum rs_log_level rs_log_level(void)
{
    return threshold;
}

enum rs_log_format rs_log_format(void)
{
    return form;
}

static void json_text(struct rs_buf *out, const char *text)
{
    rs_buf_puts(out, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (c == '"' || c == '\\')
            rs_buf_printf(out, "\\%c", c);
        else if (c < ' ')
            rs_buf_printf(out, "\\u%04x", c);
        else
            rs_buf_append(out, p, 1);
    }
    rs_buf_puts(out, "\"");
}

static void stamp(struct rs_buf *out)
{
    struct timeval now;
    struct tm local;

    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &local);
    rs_buf_printf(out, "%04d-%02d-%02d %02d:%02d:%02d,%03d", local.tm_year + 1900, local.tm_mon + 1,
                  local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec,
                  (int)(now.tv_usec / 1000));
}

void rs_log(enum rs_log_level level, const char *event, const char *fmt, ...)
{
    struct rs_buf line = {0};
    char fields[1024];
    va_list args;
    ssize_t unused;

    if (level < threshold || level >= RS_LOG_OFF)
        return;
    va_start(args, fmt);
    vsnprintf(fields, sizeof(fields), fmt, args);
    va_end(args);
    if (form == RS_LOG_JSON) {
        rs_buf_puts(&line, "{\"asctime\": \"");
        stamp(&line);
        rs_buf_printf(&line, "\", \"levelname\": \"%s\", \"message\": ", names[level]);
        json_text(&line, event);
        rs_buf_puts(&line, ", \"fields\": ");
        json_text(&line, fields);
        rs_buf_puts(&line, "}\n");
    } else {
        rs_buf_printf(&line, "%s ", names[level]);
        stamp(&line);
        rs_buf_printf(&line, " %s%s%s\n", event, fields[0] ? " " : "", fields);
    }
    unused = write(STDERR_FILENO, rs_buf_head(&line), rs_buf_len(&line));
    (void)unused;
    rs_buf_fini(&line);
}
