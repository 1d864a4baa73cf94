/* One log file that rotates: NAME, NAME.1 (newer) .. NAME.keep (oldest).
 *
 * Trouble with the disk is never an error of the caller: lines are dropped and counted, one warning
 * tells of it, and each later line tries again.
 */
#pragma once

#include "core/base/cleanup.h"

#include <stddef.h>
#include <stdint.h>

struct rs_logfile;

/* Opened with the first line. `max` 0: 16 MiB; `keep` 0: 3. */
struct rs_logfile *rs_logfile_new(const char *path, uint64_t max, unsigned keep);
void rs_logfile_free(struct rs_logfile *f);
RS_DEFINE_AUTO(struct rs_logfile *, rs_logfile_free);

/* Both return how many lines were dropped. A line is written with the next flush, or when enough
 * of them have gathered. */
uint64_t rs_logfile_line(struct rs_logfile *f, const char *line, size_t len);
uint64_t rs_logfile_flush(struct rs_logfile *f);

#define RS_LOGFILES_MAX 500
/* Removes the oldest log files (*.log, *.log.N) of a folder beyond RS_LOGFILES_MAX. */
void rs_logfile_prune(const char *dir);
