/*
 * A stand-in for libnvrtc.so.13. Its cubin is the source itself, for the stand-in of libcuda to read; a line `//log TEXT` in
 * the source makes it fail with that log. Like the real one it opens its builtins by their bare name while compiling.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char *source; char log[4096]; } Program;
static char options[4096];
static int live;

const char *fake_options(void) { return options; }
int fake_programs(void) { return live; }

const char *nvrtcGetErrorString(int result) {
  return result == 6 ? "NVRTC_ERROR_COMPILATION" : result == 7 ? "NVRTC_ERROR_BUILTIN_OPERATION_FAILURE" : "NVRTC_ERROR_FAKE";
}
int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
int nvrtcCreateProgram(Program **program, const char *source, const char *name, int count, void *headers, void *names) {
  if (count || headers || names || !strstr(name, ".cu")) return 3;
  *program = calloc(1, sizeof **program);
  (*program)->source = strdup(source);
  live++;
  return 0;
}
int nvrtcCompileProgram(Program *program, int count, const char *const *given) {
  options[0] = 0;
  for (int i = 0; i < count; i++) { strcat(options, given[i]); strcat(options, "\n"); }
  if (!dlopen("libnvrtc-builtins.so.13.0", RTLD_LAZY)) return 7;
  const char *log = strstr(program->source, "//log ");
  if (!log) return 0;
  snprintf(program->log, sizeof program->log, "%.*s\n", (int)strcspn(log + 6, "\n"), log + 6);
  return 6;
}
int nvrtcDestroyProgram(Program **program) { free((*program)->source); free(*program); *program = NULL; live--; return 0; }
int nvrtcGetProgramLogSize(Program *program, size_t *size) { *size = strlen(program->log) + 1; return 0; }
int nvrtcGetProgramLog(Program *program, char *log) { strcpy(log, program->log); return 0; }
int nvrtcGetCUBINSize(Program *program, size_t *size) { *size = strlen(program->source) + 1; return 0; }
int nvrtcGetCUBIN(Program *program, char *cubin) { strcpy(cubin, program->source); return 0; }
int nvrtcGetPTXSize(Program *program, size_t *size) { (void)program; *size = 1; return 0; }
int nvrtcGetPTX(Program *program, char *ptx) { (void)program; *ptx = 0; return 0; }
