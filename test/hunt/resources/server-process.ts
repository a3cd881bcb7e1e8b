// A server process, controlled by its parent.

import { type ChildProcess, fork } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { PROCESS_END } from './bounds.ts'
import type { Address, AppConfig, FromServer, Peak, Sample, Task } from './messages.ts'

export class ServerProcess {
  readonly config: AppConfig
  address: Address = { port: 0, host: '' }
  /** The beginning of what it has written to stderr. */
  errorOutput = ''
  private readonly child: ChildProcess
  private readonly exited: Promise<void>
  private readonly waiting = new Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>()
  private lastId = 0
  private exit: string | null = null

  private constructor (config: AppConfig) {
    this.config = config
    this.child = fork(join(__dirname, 'server.js'), [JSON.stringify(config)], { execArgv: ['--expose-gc'], silent: true })
    this.child.stderr!.on('data', (text) => { this.errorOutput = (this.errorOutput + text).slice(0, 4000) })
    this.exited = new Promise((resolve) => {
      this.child.on('exit', (code, signal) => {
        this.exit = String(signal ?? code)
        // A process that was killed leaves its socket file.
        if ('path' in this.address) rmSync(this.address.path, { force: true })
        for (const { reject } of this.waiting.values()) reject(new Error(`the server process exited with ${this.exit}: ${this.errorOutput}`))
        resolve()
      })
    })
  }

  static async start (config: AppConfig): Promise<ServerProcess> {
    const server = new ServerProcess(config)
    const listening = new Promise<Address>((resolve) => {
      server.child.on('message', (message: FromServer) => {
        if ('listening' in message) {
          resolve(message.listening)
        } else {
          server.waiting.get(message.id)?.resolve(message.result)
          server.waiting.delete(message.id)
        }
      })
    })
    server.address = await Promise.race([listening, server.exited.then(() => { throw new Error(server.errorOutput) })])
    return server
  }

  sample (): Promise<Sample> {
    return this.ask('sample')
  }

  peak (): Promise<Peak> {
    return this.ask('peak')
  }

  /** Releases the handlers and hooks that wait. */
  release (): Promise<void> {
    return this.ask('release')
  }

  /** Closes the app. @returns what is wrong with the exit of the process, or null if it has exited by itself */
  async close (): Promise<string | null> {
    const limit = sleep(PROCESS_END, null, { ref: false })
    const active = await Promise.race([this.ask<string[]>('close').catch(() => []), limit])
    const hasExited = await Promise.race([this.exited.then(() => true), limit])
    if (hasExited) return this.exit === '0' ? null : `exited with ${this.exit}: ${this.errorOutput}`
    // A process that hangs while it exits does not answer.
    const resources = active ?? await Promise.race([this.ask<string[]>('resources'), sleep(1000, ['no answer'], { ref: false })])
    await this.kill()
    return `${active === null ? 'app.close() did not resolve' : 'the process did not exit'}; active: ${summary(resources)}`
  }

  async kill (): Promise<void> {
    if (this.exit === null) this.child.kill('SIGKILL')
    await this.exited
  }

  private ask<T> (task: Task): Promise<T> {
    const id = ++this.lastId
    return new Promise((resolve, reject) => {
      if (this.exit !== null) {
        reject(new Error(`the server process exited with ${this.exit}: ${this.errorOutput}`))
        return
      }
      this.waiting.set(id, { resolve, reject })
      this.child.send({ id, task }, () => {}) // if it fails, 'exit' rejects
    })
  }
}

/** For example `TCPSocketWrap 18, Timeout`. */
function summary (names: string[]): string {
  const counts = new Map<string, number>()
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts].map(([name, count]) => count === 1 ? name : `${name} ${count}`).join(', ')
}
