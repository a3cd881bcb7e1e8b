// A process of clients, over Node's own HTTP client. Holds exchanges open, or talks and leaves at random, or has one
// short exchange after the other.

import http from 'node:http'
import net from 'node:net'
import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises'
import type { ClientReport, ClientTask } from './messages.ts'
import { answerTo, matches, pattern } from './pattern.ts'

const report: ClientReport = { opened: 0, ended: 0, halfClosed: 0, cutOff: 0, reset: 0, messages: 0, bytes: 0, wrong: [] }
/** What the parent has said: clients talk when all are open. */
const told = { go: false, stop: false }

/** So many are opened at once. */
const OPENING = 100
/** Bytes of all exchanges that may wait for their answer: more would only stand in queues. */
const MAX_IN_FLIGHT = 256 * 1024

process.on('message', (task: ClientTask) => {
  if (task.task === 'go' || task.task === 'stop') told[task.task] = true
  else run(task).then(() => process.send!({ event: 'done', report }, () => process.disconnect()))
})

async function run (task: ClientTask): Promise<void> {
  if (task.task === 'hold') await hold(task)
  else if (task.task === 'talk') await talk(task)
  else await short(task)
}

// Exchanges that stay open

async function hold ({ port, path, connections }: ClientTask): Promise<void> {
  const agent = new http.Agent({ maxSockets: Infinity })
  const requests: http.ClientRequest[] = []
  await atOnce(connections, OPENING, async () => {
    const request = http.request({ agent, port, path, host: '127.0.0.1', method: 'POST', headers: { 'content-type': 'application/octet-stream' } })
    requests.push(request)
    request.write('a')
    await new Promise<void>((resolve, reject) => {
      request.on('error', reject)
      request.on('response', (response) => response.on('data', () => resolve()))
    })
    report.opened++
  })
  process.send!({ event: 'open' })
  while (!told.stop) await sleep(20)
  await Promise.all(requests.map((request) => new Promise<void>((resolve) => {
    request.on('close', resolve)
    request.end()
  })))
  report.ended = requests.length
}

async function atOnce (count: number, width: number, action: () => Promise<void>): Promise<void> {
  let left = count
  await Promise.all(Array.from({ length: Math.min(width, count) }, async () => {
    while (left-- > 0) await action()
  }))
}

// Exchanges that talk

const LEAVES = ['end', 'end', 'end', 'halfClose', 'cutOff', 'reset'] as const
type Leave = typeof LEAVES[number]

let inFlight = 0

class Talker {
  readonly opened: Promise<void>
  readonly left: Promise<void>
  place = 0 // among those that talk
  private readonly number: number
  private readonly request: http.ClientRequest
  private response: http.IncomingMessage | null = null
  private sent = 0
  private received = 0
  private leave: Leave | null = null
  private leaveDone!: () => void

  constructor (number: number, port: number, agent: http.Agent) {
    this.number = number
    this.request = http.request({ agent, port, path: `/talk/${number}`, host: '127.0.0.1', method: 'POST' })
    this.left = new Promise((resolve) => { this.leaveDone = resolve })
    this.opened = new Promise((resolve) => {
      this.request.on('response', (response) => {
        this.onResponse(response)
        resolve()
      })
      this.request.on('error', (error) => {
        if (this.response === null) this.fail(`not opened: ${error.message}`)
        this.onGone()
        resolve()
      })
    })
    this.request.flushHeaders()
  }

  say (size: number): void {
    this.request.write(pattern(this.number, this.sent, size))
    this.sent += size
    inFlight += size
    report.messages++
  }

  go (how: Leave): void {
    if (this.leave !== null) return
    this.leave = how
    const { socket } = this.request
    if (how === 'end') this.request.end()
    else if (how === 'halfClose') this.request.end(() => socket!.end())
    else if (how === 'cutOff') socket!.end()
    else socket!.resetAndDestroy()
  }

  private onResponse (response: http.IncomingMessage): void {
    report.opened++
    this.response = response
    response.on('data', (piece: Buffer) => {
      if (matches(piece, answerTo(this.number), this.received)) report.bytes += piece.length
      else this.fail(`answered ${response.statusCode}, other bytes at ${this.received}: ${piece.toString('latin1', 0, 200)}`)
      this.received += piece.length
      inFlight -= piece.length
    })
    response.on('end', () => this.onEnd())
    response.on('error', () => this.onGone())
  }

  private onEnd (): void {
    const { leave, sent, received } = this
    if (leave !== 'end' && leave !== 'halfClose') this.fail(`ended, after ${leave}`)
    else if (received !== sent || this.response!.trailers['x-received'] !== String(sent)) this.fail(`${sent} sent, ${received} received`)
    else if (leave === 'end') report.ended++
    else report.halfClosed++
    this.leaveDone()
  }

  private onGone (): void {
    if (this.leave === 'cutOff') report.cutOff++
    else if (this.leave === 'reset') report.reset++
    else this.fail(`lost, after ${this.leave}`)
    this.leave = 'reset' // once
    this.onGone = () => {}
    inFlight -= this.sent - this.received
    this.leaveDone()
  }

  private fail (why: string): void {
    report.wrong.push(`exchange ${this.number}: ${why}`)
  }
}

function mayTalk (talkers: Talker[]): boolean {
  return talkers.length > 0 && inFlight < MAX_IN_FLIGHT
}

async function talk ({ port, connections, index, clients }: ClientTask): Promise<void> {
  // An ended exchange leaves its connection to the next.
  const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: connections })
  const talkers: Talker[] = []
  let number = index
  const open = async (): Promise<void> => {
    const talker = new Talker(number, port, agent)
    number += clients
    await talker.opened
    talker.place = talkers.push(talker) - 1
  }
  const remove = ({ place }: Talker): void => {
    const last = talkers.pop()!
    if (place === talkers.length) return
    talkers[place] = last
    last.place = place
  }
  const leaving = new Set<Promise<void>>()
  const leave = (talker: Talker, how: Leave): void => {
    remove(talker)
    talker.go(how)
    const left = talker.left.then(() => told.stop ? undefined : open()).then(() => { leaving.delete(left) })
    leaving.add(left)
  }
  await atOnce(connections, OPENING, open)
  process.send!({ event: 'open' })
  while (!told.go) await sleep(20)
  while (!told.stop) {
    for (let i = 0; i < 50 && mayTalk(talkers); i++) {
      const talker = talkers[Math.floor(Math.random() * talkers.length)]
      talker.say(1 + Math.floor(Math.random() ** 4 * 4000))
      if (Math.random() < 0.05 && leaving.size < OPENING) leave(talker, LEAVES[Math.floor(Math.random() * LEAVES.length)])
    }
    await immediate()
  }
  while (leaving.size > 0) await Promise.all(leaving)
  while (talkers.length > 0) leave(talkers[0], 'end')
  await Promise.all(leaving)
  agent.destroy()
}

// Short exchanges

/** One after the other on one connection, raw: a client of Node's would take most of the time. */
async function shortOnes (port: number, next: () => number): Promise<void> {
  const socket = net.connect(port, '127.0.0.1').setNoDelay(true)
  socket.setEncoding('latin1')
  let received = ''
  let expected = ''
  const ask = (): void => {
    const number = next().toString(16).padStart(8, '0')
    expected = `\r\n\r\n8\r\n${number}\r\n0\r\n\r\n`
    socket.write(`POST /duplex HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n8\r\n${number}\r\n0\r\n\r\n`)
  }
  ask()
  await new Promise<void>((resolve) => {
    socket.on('data', (piece: string) => {
      received += piece
      if (!received.endsWith('\r\n0\r\n\r\n')) return
      if (received.startsWith('HTTP/1.1 200 ') && received.endsWith(expected) && received.length < 400) report.ended++
      else report.wrong.push(received.slice(0, 400))
      received = ''
      if (told.stop || report.wrong.length > 0) socket.end()
      else ask()
    })
    socket.on('error', (error) => report.wrong.push(error.message))
    socket.on('close', () => resolve())
  })
}

async function short ({ port, connections, index, clients }: ClientTask): Promise<void> {
  let number = index
  const next = (): number => {
    report.opened++
    number += clients
    return number % 2 ** 32
  }
  const all = Array.from({ length: connections }, () => shortOnes(port, next))
  process.send!({ event: 'open' })
  await Promise.all(all)
}
