// Runs commands with a time limit. A command that is killed is killed together with all its child processes.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'

export const MINUTE = 60_000

export interface Command {
  cwd: string
  /** Time limit in milliseconds. */
  limit: number
  env?: NodeJS.ProcessEnv
  /** Receives stdout, which is then missing in `printed`. */
  onOutput?: (text: string) => void
}

export interface Result {
  /** Exit code. Null if the command was killed, by its limit or by a signal. */
  code: number | null
  /** stderr, and stdout unless `onOutput` has received it. */
  printed: string
  timedOut: boolean
}

const running = new Set<ChildProcess>()
let interrupted = false

export async function run (file: string, args: string[], { cwd, limit, env, onOutput }: Command): Promise<Result> {
  if (interrupted) throw new Error('interrupted')
  // In a new process group, so that the whole group can be killed. Windows has no groups.
  const child = spawn(file, args, { cwd, env: env ?? process.env, stdio: ['ignore', 'pipe', 'pipe'], detached: process.platform !== 'win32' })
  running.add(child)
  let printed = ''
  const keep = (text: string): void => { printed += text }
  child.stderr.setEncoding('utf8').on('data', keep)
  child.stdout.setEncoding('utf8').on('data', onOutput ?? keep)
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    kill(child)
  }, limit)
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', resolve)
    })
    if (interrupted) throw new Error('interrupted')
    return { code, printed, timedOut }
  } finally {
    clearTimeout(timer)
    running.delete(child)
  }
}

function kill (child: ChildProcess): void {
  if (child.pid === undefined) return
  if (process.platform === 'win32') {
    spawnSync('taskkill', ['/pid', String(child.pid), '/t', '/f'])
    return
  }
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It has just exited by itself.
  }
}

/** Kills all running commands, and prevents new ones. */
export function killAll (): void {
  interrupted = true
  for (const child of running) kill(child)
}

/** Runs npm as a script, which needs no shell on Windows. npm sets `npm_execpath` for the scripts that it runs. */
export async function npm (args: string[], command: Command): Promise<Result> {
  const script = process.env.npm_execpath
  if (script === undefined) throw new Error('This must be run by npm: npm run test:matrix')
  return run(process.execPath, [script, ...args], command)
}
