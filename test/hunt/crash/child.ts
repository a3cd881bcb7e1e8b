// A child process with one app, as its parent sees it.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { NetConnectOpts } from 'node:net'
import { join } from 'node:path'
import { EXIT_LIMIT, START_LIMIT, comesWithin, within } from './limits.ts'
import type { Message, Question } from './messages.ts'
import type { Profile } from './profile.ts'

/** How much of what a child prints is kept: a native abort says there what it is. */
const KEPT = 8192

export class Child {
  readonly profile: Profile
  address!: NetConnectOpts
  /** Of the app without the plugin, if there is one. */
  plainAddress!: NetConnectOpts
  authorities!: Record<string, string>
  /** What nobody has caught, or what the process said before it died. */
  crash: string | null = null
  /** Of requests that no client has sent. */
  readonly smuggled = new Set<string>()
  /** Settles with the end of the process. */
  readonly exited: Promise<void>
  private readonly process: ChildProcess
  private readonly answers = new Map<number, (wrong: string[]) => void>()
  private questions = 0
  private output = ''
  private expectedToExit = false

  private constructor (seed: number, profile: Profile) {
    this.profile = profile
    this.process = fork(join(__dirname, 'server.js'), [JSON.stringify([seed, profile])], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
    for (const stream of [this.process.stdout!, this.process.stderr!]) {
      stream.on('data', (text) => { this.output = (this.output + String(text)).slice(-KEPT) })
    }
    this.exited = once(this.process, 'close').then(([code, signal]) => {
      if (this.crash === null && !(this.expectedToExit && code === 0)) this.crash = `ended with ${signal ?? `code ${code}`}\n${this.output}`
      for (const answer of this.answers.values()) answer([])
    })
  }

  static async start (seed: number, profile: Profile): Promise<Child> {
    const child = new Child(seed, profile)
    try {
      await within(START_LIMIT, 'start of a child', Promise.race([child.ready(), child.exited]))
    } catch (error) {
      await child.kill()
      throw error
    }
    if (child.crash !== null) throw new Error(`a child did not start: ${child.crash}`)
    return child
  }

  private ready (): Promise<void> {
    return new Promise((resolve) => {
      this.process.on('message', (message: Message) => {
        if (message.tell === 'uncaught') this.crash ??= `${message.origin}: ${message.stack}`
        if (message.tell === 'smuggled') this.smuggled.add(message.id)
        if (message.tell === 'answer') {
          this.answers.get(message.number)?.(message.wrong)
          this.answers.delete(message.number)
        }
        if (message.tell !== 'ready') return
        this.address = message.address as NetConnectOpts
        this.plainAddress = message.plainAddress as NetConnectOpts
        this.authorities = message.authorities
        resolve()
      })
    })
  }

  get isAlive (): boolean {
    return this.crash === null && this.process.connected
  }

  /** @returns what is wrong; nothing if the process has ended, for that is told otherwise */
  async ask (question: Question): Promise<string[]> {
    if (!this.isAlive) return []
    const number = this.questions++
    return new Promise((resolve) => {
      this.answers.set(number, resolve)
      this.process.send({ number, question }, (error) => { if (error) resolve([]) })
    })
  }

  /** The process ends by itself, after its app has closed. */
  async leaves (): Promise<string[]> {
    this.expectedToExit = true
    if (await comesWithin(EXIT_LIMIT, this.exited)) return []
    const { output } = this
    this.crash ??= 'killed'
    await this.kill()
    return [`the process does not end after app.close(): ${output.trim()}`]
  }

  async kill (): Promise<void> {
    this.crash ??= 'killed'
    this.process.kill('SIGKILL')
    await this.exited
  }
}
