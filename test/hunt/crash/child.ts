// A child process with one app, controlled by its parent.

import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import type { NetConnectOpts } from 'node:net'
import { join } from 'node:path'
import { EXIT_LIMIT, START_LIMIT, settlesWithin, within } from './limits.ts'
import type { Message, Question } from './messages.ts'
import type { Profile } from './profile.ts'

/** How many characters of the output of a child are kept. A native abort prints its reason there. */
const OUTPUT_SIZE = 8192

export class Child {
  readonly profile: Profile
  address!: NetConnectOpts
  /** Address of the app without the plugin, in a comparison. */
  plainAddress!: NetConnectOpts
  authorities!: Record<string, string>
  /** The uncaught error, or the last output of a process that has died. */
  crash: string | null = null
  /** Ids of smuggled requests. */
  readonly smuggled = new Set<string>()
  /** Resolves when the process has exited. */
  readonly exited: Promise<void>
  private readonly process: ChildProcess
  private readonly answers = new Map<number, (problems: string[]) => void>()
  private questions = 0
  private output = ''
  private expectedToExit = false

  private constructor (seed: number, profile: Profile) {
    this.profile = profile
    this.process = fork(join(__dirname, 'server.js'), [JSON.stringify([seed, profile])], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] })
    for (const stream of [this.process.stdout!, this.process.stderr!]) {
      stream.on('data', (text) => { this.output = (this.output + String(text)).slice(-OUTPUT_SIZE) })
    }
    this.exited = once(this.process, 'close').then(([code, signal]) => {
      if (this.crash === null && !(this.expectedToExit && code === 0)) this.crash = `exited with ${signal ?? `code ${code}`}\n${this.output}`
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
          this.answers.get(message.number)?.(message.problems)
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

  /** @returns the problems. None if the process has exited, because `crash` reports that. */
  async ask (question: Question): Promise<string[]> {
    if (!this.isAlive) return []
    const number = this.questions++
    return new Promise((resolve) => {
      this.answers.set(number, resolve)
      this.process.send({ number, question }, (error) => { if (error) resolve([]) })
    })
  }

  /** Waits until the process has exited by itself, after its app has closed. @returns the problems */
  async waitForExit (): Promise<string[]> {
    this.expectedToExit = true
    if (await settlesWithin(EXIT_LIMIT, this.exited)) return []
    const { output } = this
    this.crash ??= 'killed'
    await this.kill()
    return [`the process does not exit after app.close(): ${output.trim()}`]
  }

  async kill (): Promise<void> {
    this.crash ??= 'killed'
    this.process.kill('SIGKILL')
    await this.exited
  }
}
