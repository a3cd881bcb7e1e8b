// The oracles that are other programs. Each is started once and reads many messages at a time.

import { type ChildProcessWithoutNullStreams, execFileSync, spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Verdict } from './verdict.ts'

export interface Oracle<Answer = Verdict> {
  name: string
  version: string
  ask: (messages: Buffer[]) => Promise<Answer[]>
  close: () => void
}

const SOURCES = join(process.cwd(), 'test/fuzz')

/** Starts the oracles that are installed, and prints which are not. */
export function startOracles (): Oracle[] {
  return [startGo(), startH11()].filter((oracle) => oracle !== null)
}

function startGo (): Oracle | null {
  const { stdout, status } = spawnSync('go', ['version'], { encoding: 'utf8' })
  if (status !== 0) return skip('Go is not installed')
  const program = join(SOURCES, 'build/oracle')
  mkdirSync(join(SOURCES, 'build'), { recursive: true })
  execFileSync('go', ['build', '-o', program, join(SOURCES, 'oracle.go')], { stdio: 'inherit' })
  return start('go', stdout.trim().split(' ')[2], program, [])
}

function startH11 (): Oracle | null {
  const target = join(SOURCES, '.python')
  const env = { ...process.env, PYTHONPATH: target }
  const version = (): string => spawnSync('python3', ['-c', 'import h11; print(h11.__version__)'], { encoding: 'utf8', env }).stdout?.trim() ?? ''
  if (version() === '' && !existsSync(target)) {
    spawnSync('python3', ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--root-user-action=ignore', '--target', target, 'h11'], { stdio: 'ignore' })
  }
  return version() === '' ? skip('Python with h11 is not installed') : start('h11', version(), 'python3', [join(SOURCES, 'oracle_h11.py')], env)
}

/** @returns null if it is not installed */
export function startPython<Answer> (script: string): Oracle<Answer> | null {
  const { stdout, status } = spawnSync('python3', ['--version'], { encoding: 'utf8' })
  return status === 0 ? start('python', stdout.trim().split(' ')[1], 'python3', [join(SOURCES, script)]) : skip('Python is not installed')
}

function skip (reason: string): null {
  console.log(`SKIPPED: ${reason}`)
  return null
}

function start<Answer> (name: string, version: string, command: string, args: string[], env = process.env): Oracle<Answer> {
  const child: ChildProcessWithoutNullStreams = spawn(command, args, { env })
  let received = Buffer.alloc(0)
  let answers: Answer[] = []
  let expected = 0
  let resolve: (answers: Answer[]) => void = () => {}
  let reject: (error: Error) => void = () => {}
  let errorOutput = ''
  child.stderr.on('data', (text) => { errorOutput += text })
  child.on('close', () => reject(new Error(`${name} has exited: ${errorOutput}`)))
  child.stdin.on('error', () => {}) // 'close' reports it
  child.stdout.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk])
    let at = 0
    while (received.length >= at + 4 && received.length >= at + 4 + received.readUInt32BE(at)) {
      const end = at + 4 + received.readUInt32BE(at)
      answers.push(JSON.parse(received.toString('utf8', at + 4, end)))
      at = end
    }
    received = received.subarray(at)
    if (answers.length === expected) resolve(answers)
  })
  return {
    name,
    version,
    ask (messages) {
      return new Promise((_resolve, _reject) => {
        answers = []
        expected = messages.length
        resolve = _resolve
        reject = _reject
        child.stdin.write(Buffer.concat(messages.flatMap((message) => {
          const size = Buffer.alloc(4)
          size.writeUInt32BE(message.length)
          return [size, message]
        })))
      })
    },
    close: () => { child.stdin.end() }
  }
}
