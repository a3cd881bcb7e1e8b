// The process of one app: serves, keeps the books, and tells its parent of everything that nobody has caught.

import type { FastifyInstance } from 'fastify'
import { MAX_EXCHANGES, serve } from './app.ts'
import { Books } from './books.ts'
import { caseOf } from './case.ts'
import { census } from './census.ts'
import { dialer } from './connection.ts'
import { BALANCE_LIMIT, DIFFERENCE_LIMIT, EXIT_LIMIT } from './limits.ts'
import { runHttp1 } from './http1-client.ts'
import { memoryDialer, runMemory } from './memory-client.ts'
import { type Message, type Question, UNCAUGHT } from './messages.ts'
import { servePair } from './ordinary/app.ts'
import { differences } from './ordinary/log.ts'
import { isComparison, isHttp2, tcpOrTls } from './kinds.ts'
import type { Profile } from './profile.ts'
import { listenTargets } from './targets.ts'

function tell (message: Message, then = (): void => {}): void {
  if (process.connected) process.send!(message, undefined, undefined, then)
}

process.on('uncaughtException', (error, origin) => {
  tell({ tell: 'uncaught', origin, stack: String(error instanceof Error ? error.stack : error) }, () => process.exit(UNCAUGHT))
})

async function main (): Promise<void> {
  const [seed, profile] = JSON.parse(process.argv[2]) as [number, Profile]
  if (isComparison(profile.transport)) await mainOfComparison(profile)
  else await mainOfApp(seed, profile)
}

/** Never comes if the process ends in time. */
function tellWhatIsLeft (): void {
  setTimeout(() => { console.error('left behind:', process.getActiveResourcesInfo().join(', ')) }, EXIT_LIMIT / 2).unref()
}

function answerQuestions (answer: (question: Question) => Promise<string[]>, leave: () => void): void {
  // The parent is gone, without a word.
  const onOrphaned = (): void => process.exit()
  process.on('disconnect', onOrphaned)
  process.on('message', async ({ number, question }: { number: number, question: Question }) => {
    tell({ tell: 'answer', number, wrong: await answer(question) })
    if (question.ask !== 'close') return
    leave()
    process.removeListener('disconnect', onOrphaned)
    process.disconnect()
    tellWhatIsLeft()
  })
}

async function mainOfComparison (profile: Profile): Promise<void> {
  const books = new Books()
  const { app, plain, log, plainLog, address, plainAddress } = await servePair(profile, books)
  answerQuestions(async (question) => {
    if (question.ask === 'balance') return books.balance(question.case, BALANCE_LIMIT)
    if (question.ask === 'differences') return differences(log, plainLog, question.prefix, question.requests, DIFFERENCE_LIMIT)
    if (question.ask === 'census') return census(books, dialer(tcpOrTls(profile.transport), address), false, MAX_EXCHANGES)
    await Promise.all([app.close(), plain.close()])
    return books.balance(null, BALANCE_LIMIT)
  }, () => {})
  tell({ tell: 'ready', address, plainAddress, authorities: {} })
}

async function mainOfApp (seed: number, profile: Profile): Promise<void> {
  const books = new Books()
  const targets = await listenTargets()
  const { app, address } = await serve(profile, books, (id) => tell({ tell: 'smuggled', id }))
  const dial = profile.transport === 'memory' ? memoryDialer(app) : dialer(profile.transport, address)
  const balance = (number: number): Promise<string[]> => books.balance(number, BALANCE_LIMIT)

  const running = new Set<Promise<unknown>>()
  answerQuestions(answer, () => targets.close())

  async function answer (question: Question): Promise<string[]> {
    if (question.ask === 'balance') return balance(question.case)
    if (question.ask === 'census') return census(books, dial, isHttp2(profile.transport), MAX_EXCHANGES)
    if (question.ask === 'close') return close(app)
    if (question.ask !== 'run') throw new Error(`no answer to ${question.ask}`)
    const one = caseOf(seed, question.case, profile)
    const surroundings = { dial, authorities: targets.authorities, balance }
    const run = one.client === 'memory' ? runMemory(one, app, surroundings) : runHttp1(one, surroundings)
    running.add(run)
    return run.finally(() => running.delete(run))
  }

  async function close (app: FastifyInstance): Promise<string[]> {
    await app.close()
    await Promise.allSettled(running)
    return books.balance(null, BALANCE_LIMIT)
  }

  tell({ tell: 'ready', address, authorities: targets.authorities })
}

main()
