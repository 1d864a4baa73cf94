/* Log lines of the program itself, on stderr: text for people, JSON for collectors.
 *
 * Thread:  any; each line is one write.
 * Who:     loop owners (cmd, sched/supervise, net/http, net/router) log, once, on change; core and
 *          gpu never above debug.
 * Form:    rs_log_info("replica started", "replica=%s pid=%d", id, pid): a fixed event text, then
 *          fields as key=value; a value with blanks is put in quotes by the caller.
 */
#pragma once

#include "core/base/error.h"

enum rs_log_level { RS_LOG_DEBUG, RS_LOG_INFO, RS_LOG_WARN, RS_LOG_ERROR, RS_LOG_OFF };
enum rs_log_format { RS_LOG_TEXT, RS_LOG_JSON };

/* Once, before threads start. Below `level` nothing is written. */
void rs_log_setup(enum rs_log_level level, enum rs_log_format format);
enum rs_log_level rs_log_level(void);
enum rs_log_format rs_log_format(void);
void rs_log(enum rs_log_level level, const char *event, const char *fmt, ...) RS_PRINTF(3, 4);

#define rs_log_debug(...) rs_log(RS_LOG_DEBUG, __VA_ARGS__)
#define rs_log_info(...) rs_log(RS_LOG_INFO, __VA_ARGS__)
#define rs_log_warn(...) rs_log(RS_LOG_WARN, __VA_ARGS__)
#define rs_log_error(...) rs_log(RS_LOG_ERROR, __VA_ARGS__)
