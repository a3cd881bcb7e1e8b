// Commands of bounded time, each ended together with all it has started.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process'

export const MINUTE = 60_000

export interface Command {
  cwd: string
  /** In milliseconds. */
  limit: number
  env?: NodeJS.ProcessEnv
  /** Is given the output of the command, which is kept otherwise. */
  onOutput?: (text: string) => void
}

export interface Ended {
  /** Null if it was ended, by the limit or by a signal. */
  code: number | null
  /** What it has printed, without the output if that went elsewhere. */
  printed: string
  timedOut: boolean
}

const running = new Set<ChildProcess>()
let interrupted = false

export async function run (file: string, args: string[], { cwd, limit, env, onOutput }: Command): Promise<Ended> {
  if (interrupted) throw new Error('interrupted')
  // A process group of its own, where there are groups.
  const child = spawn(file, args, { cwd, env: env ?? process.env, stdio: ['ignore', 'pipe', 'pipe'], detached: process.platform !== 'win32' })
  running.add(child)
  let printed = ''
  const keep = (text: string): void => { printed += text }
  child.stderr.setEncoding('utf8').on('data', keep)
  child.stdout.setEncoding('utf8').on('data', onOutput ?? keep)
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    end(child)
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

function end (child: ChildProcess): void {
  if (child.pid === undefined) return
  if (process.platform === 'win32') {
    spawnSync('taskkill', ['/pid', String(child.pid), '/t', '/f'])
    return
  }
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // It has just ended by itself.
  }
}

/** Ends what runs, and lets nothing more begin. */
export function interrupt (): void {
  interrupted = true
  for (const child of running) end(child)
}

/** npm as a script, which needs no shell on Windows. npm sets its path for the scripts that it runs. */
export async function npm (args: string[], command: Command): Promise<Ended> {
  const script = process.env.npm_execpath
  if (script === undefined) throw new Error('Run it by npm: npm run test:matrix')
  return run(process.execPath, [script, ...args], command)
}
